package secrets

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// reference is one ${kind:name} in a text.
type reference struct {
	start, end int // bytes, end after the brace
	kind, name string
}

// Reference is how a stored secret is written.
func Reference(name string) string { return "${secret:" + name + "}" }

// References tells whether a text holds any reference.
func References(text string) bool {
	refs, err := find(text)
	return err == nil && len(refs) > 0
}

// Names lists the stored secrets that a text refers to.
func Names(text string) []string {
	refs, err := find(text)
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range refs {
		if r.kind == "secret" {
			names = append(names, r.name)
		}
	}
	return names
}

// find lists the references of a text. "$${" stands for a literal "${".
func find(text string) ([]reference, error) {
	var refs []reference
	for i := 0; i < len(text); {
		j := strings.Index(text[i:], "${")
		if j < 0 {
			break
		}
		start := i + j
		if start > 0 && text[start-1] == '$' {
			i = start + 2
			continue
		}
		end := strings.IndexByte(text[start:], '}')
		if end < 0 {
			return nil, badReference("a reference has no closing brace")
		}
		kind, name, ok := strings.Cut(text[start+2:start+end], ":")
		if !ok || kind != "secret" && kind != "env" || checkName(name) != nil {
			// The text between the braces is not repeated: it may be a password that happens to hold "${".
			return nil, badReference("what stands between the braces of ${...} is neither secret:NAME nor env:NAME")
		}
		refs = append(refs, reference{start, start + end + 1, kind, name})
		i = start + end + 1
	}
	return refs, nil
}

func badReference(why string) error {
	return errs.New(errs.SecretMissing, "%s", why).
		WithHint("write ${secret:NAME} for a stored secret, ${env:NAME} for an environment variable, $${ for the characters ${")
}

func (s *Store) resolve(r reference) (string, error) {
	if r.kind == "secret" {
		v, err := s.Get(r.name)
		return v.Reveal(), err
	}
	if s.opts.Getenv != nil {
		if text, ok := s.opts.Getenv(r.name); ok {
			return text, nil
		}
	}
	return "", errs.New(errs.SecretMissing, "the environment variable %s is not set", r.name).
		WithHint("a reference ${env:%s} needs it where weir runs", r.name)
}

// Expand puts the values in the place of references, as they are.
func (s *Store) Expand(text string) (Value, error) {
	return s.expand(text, func(_ reference, value string) string { return value })
}

// ExpandURL is Expand for a connection string: a value is escaped the way its place needs, so that a password may hold
// any character. A string that is one reference and nothing else is a whole connection string and stays as it is, and so
// does a host, which has no characters to escape.
func (s *Store) ExpandURL(text string) (Value, error) {
	refs, err := find(text)
	if err != nil {
		return Value{}, err
	}
	if len(refs) == 1 && refs[0].start == 0 && refs[0].end == len(text) {
		return s.Expand(text)
	}
	scheme := strings.Index(text, "://")
	if scheme < 0 || strings.Contains(text[:scheme], "=") {
		escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`, " ", `\ `, "\t", "\\\t", "\n", "\\\n")
		return s.expand(text, func(_ reference, value string) string { return escape.Replace(value) })
	}
	host := scheme + len("://")
	if i := strings.IndexAny(text[host:], "@/?"); i >= 0 && text[host+i] == '@' {
		host += i + 1
	}
	path := len(text)
	if i := strings.IndexAny(text[host:], "/?"); i >= 0 {
		path = host + i
	}
	return s.expand(text, func(r reference, value string) string {
		if r.start >= host && r.start < path {
			return value
		}
		return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") // libpq takes + for a plus sign
	})
}

func (s *Store) expand(text string, escape func(reference, string) string) (Value, error) {
	refs, err := find(text)
	if err != nil {
		return Value{}, err
	}
	var b strings.Builder
	last := 0
	for _, r := range refs {
		value, err := s.resolve(r)
		if err != nil {
			return Value{}, err
		}
		b.WriteString(strings.ReplaceAll(text[last:r.start], "$${", "${"))
		b.WriteString(escape(r, value))
		last = r.end
	}
	b.WriteString(strings.ReplaceAll(text[last:], "$${", "${"))
	return NewValue(b.String()), nil
}

// Capture moves the passwords of a connection string into the store and leaves references. Calling it again with the
// same string gives the same result; with another password for the same server it replaces the stored one, so that a
// changed password needs no cleaning up. References that are there already stay.
func (s *Store) Capture(connection string) (withReferences string, err error) {
	out, found, err := capture(connection)
	if err != nil {
		return "", err
	}
	for _, f := range found {
		if err := s.Set(f.name, f.value); err != nil {
			return "", fmt.Errorf("keep the password of %s: %w", pg.Redact(connection), err)
		}
	}
	return out, nil
}

// Replaces lists the stored secrets that Capture would give another value. Whoever refers to them lives on the old one,
// so the new one should be known to work before.
func (s *Store) Replaces(connection string) ([]string, error) {
	_, found, err := capture(connection)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range found {
		switch v, err := s.Get(f.name); {
		case errs.Is(err, errs.SecretMissing):
		case err != nil:
			return nil, err
		case v.Reveal() != f.value.Reveal():
			names = append(names, f.name)
		}
	}
	return names, nil
}

// captured is a password that stood in a connection string, under the name that it gets.
type captured struct {
	name  string
	value Value
}

func capture(connection string) (withReferences string, found []captured, err error) {
	if _, err := find(connection); err == nil && References(connection) && wholeReference(connection) {
		return connection, nil, nil
	}
	// Parsing is what refuses a string too broken to tell where its password ends.
	if !References(connection) {
		if _, err := pg.ParseURL(connection); err != nil {
			return "", nil, err
		}
	}
	without, password := pg.SplitPassword(connection)
	without, sslPassword := pg.SplitSSLPassword(without)
	if password == "" && sslPassword == "" {
		return connection, nil, nil
	}
	names := map[string]string{} // placeholder -> reference
	put := func(place, value, suffix string, with func(string, string) string, into string) string {
		if value == "" {
			return into
		}
		names[place] = value
		if !wholeReference(value) {
			name := nameFor(without) + suffix
			found = append(found, captured{name, NewValue(value)})
			names[place] = Reference(name)
		}
		return with(into, place)
	}
	out := put("weirPasswordPlace", password, "", pg.WithPassword, without)
	out = put("weirSSLPasswordPlace", sslPassword, "_ssl", pg.WithSSLPassword, out)
	// The references are put in last: the escaping of WithPassword would take their braces apart.
	for place, ref := range names {
		out = strings.ReplaceAll(out, place, ref)
	}
	return out, found, nil
}

func wholeReference(text string) bool {
	refs, err := find(text)
	return err == nil && len(refs) == 1 && refs[0].start == 0 && refs[0].end == len(text)
}

// nameFor derives the secret's name from what stays when a password changes: host, database and user.
func nameFor(connection string) string {
	c, err := pg.ParseURL(connection)
	if err != nil {
		return "connection"
	}
	host := strings.Trim(c.Host(), "/")
	if c.Port() != 5432 {
		host = fmt.Sprintf("%s-%d", host, c.Port())
	}
	return nameOf(host, c.Database(), c.User())
}

// Sensitive tells whether an option of a connection (in SQL's WITH) holds a secret.
func Sensitive(key string) bool {
	last := strings.ToLower(key[strings.LastIndexByte(key, '.')+1:])
	return slices.Contains([]string{"password", "sslpassword", "secret", "token", "secret-key", "secret_key", "access-key"}, last)
}

// CaptureOption does for one option of a connection what Capture does for a connection string.
func (s *Store) CaptureOption(connection, key, value string) (string, error) {
	if key == "url" {
		return s.Capture(value)
	}
	if !Sensitive(key) || value == "" || wholeReference(value) {
		return value, nil
	}
	name := nameOf(connection, key)
	if err := s.Set(name, NewValue(value)); err != nil {
		return "", fmt.Errorf("keep %s of connection %s: %w", key, connection, err)
	}
	return Reference(name), nil
}
