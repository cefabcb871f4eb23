package pg

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/errs"
)

const masked = "xxxxx"

// Config is a parsed connection string, completed from the environment (PGHOST, PGPASSFILE, ...) the way libpq does.
type Config struct {
	pgx *pgx.ConnConfig
	// plain: sslmode=prefer has found the server without TLS. Asking again costs a connection each time.
	plain atomic.Bool
}

// ParseURL reads a URL or libpq's key=value form. Its error names the part that is wrong and never holds any part of a
// password; a string too broken to say where the password ends is not repeated at all.
func ParseURL(s string) (*Config, error) {
	bad := func(reason string) error {
		return errs.New(errs.BadURL, "%s is not a Postgres connection string: %s", Redact(s), reason).
			WithHint("use postgres://USER@HOST:PORT/DATABASE or libpq's key=value form")
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok && slices.Contains([]string{"mysql", "mariadb", "kafka"}, strings.ToLower(scheme)) {
		return nil, errs.New(errs.NotBuiltYet, "%s as a source or a target is not built yet", strings.ToLower(scheme)).
			WithHint("this release mirrors Postgres into Postgres: postgres://USER@HOST:PORT/DATABASE")
	}
	c, problem := scan(s)
	if problem != "" {
		return nil, bad(problem)
	}
	cfg, err := pgx.ParseConfig(s)
	if err != nil {
		if param, file := unreadable(err); param != "" {
			return nil, errs.New(errs.BadURL, "%s: %s names a file that cannot be read: %v", Redact(s), param, file).Because(file).
				WithHint("correct %s, or put the file there; it is read on the machine where weir runs", param)
		}
		return nil, bad(reasonOf(err, c.secrets()))
	}
	return &Config{pgx: cfg}, nil
}

// unreadable tells which parameter names a file that could not be read, by the driver's words for it.
func unreadable(err error) (param string, file *fs.PathError) {
	if !errors.As(err, &file) {
		return "", nil
	}
	for param, words := range map[string]string{"sslrootcert": "read CA file", "sslcert": "read cert", "sslkey": "read sslkey"} {
		if strings.Contains(err.Error(), words+": "+file.Error()) {
			return param, file
		}
	}
	return "", nil
}

// reasonOf takes the driver's words without the connection string that it repeats and masks by guessing.
func reasonOf(err error, secrets []string) string {
	reason := err.Error()
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		if i := strings.LastIndex(reason, "`: "); i >= 0 {
			reason = reason[i+len("`: "):]
		}
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(reason, secret) {
			return "it cannot be parsed"
		}
	}
	return reason
}

// User, Database and Host are what the connection will use. Of several hosts, Host is the first.
func (c *Config) User() string { return c.pgx.User }

// Database is the database's name; without one the server takes the user's.
func (c *Config) Database() string {
	if c.pgx.Database == "" {
		return c.pgx.User
	}
	return c.pgx.Database
}

// Host is a host name, an address, or the directory of a socket.
func (c *Config) Host() string { return c.pgx.Host }

// Port is the first host's port.
func (c *Config) Port() uint16 { return c.pgx.Port }

// HasPassword tells whether one was found in the string, the environment or the password file.
func (c *Config) HasPassword() bool { return c.pgx.Password != "" }

// SetPassword replaces the password.
func (c *Config) SetPassword(password string) { c.pgx.Password = password }

// Server is host:port/database, for people. All hosts of a list are in it.
func (c *Config) Server() string {
	seen := map[string]bool{}
	var hosts []string
	add := func(host string, port uint16) {
		h := net.JoinHostPort(host, strconv.Itoa(int(port)))
		if !seen[h] { // the TLS and the plain attempt at one host are two entries
			seen[h] = true
			hosts = append(hosts, h)
		}
	}
	add(c.pgx.Host, c.pgx.Port)
	for _, f := range c.pgx.Fallbacks {
		add(f.Host, f.Port)
	}
	return strings.Join(hosts, ",") + "/" + c.Database()
}

// Redact masks both passwords of a connection string. Of a string that does not parse only the scheme is shown: where
// its password ends is a guess.
func Redact(s string) string {
	c, problem := scan(s)
	if problem != "" {
		if c.scheme != "" {
			return c.scheme + "://" + masked
		}
		return masked
	}
	c.change("password", func(string) (string, bool) { return masked, true })
	c.change("sslpassword", func(string) (string, bool) { return masked, true })
	return c.String()
}

// SplitPassword takes the password out of a connection string, wherever it stands; of several the last counts, as for
// libpq. A string that does not parse is returned as it is: ParseURL refuses it before anybody stores it.
func SplitPassword(s string) (withoutPassword, password string) { return split(s, "password") }

// SplitSSLPassword takes out sslpassword, the password of the client key.
func SplitSSLPassword(s string) (withoutPassword, password string) { return split(s, "sslpassword") }

func split(s, key string) (without, secret string) {
	c, problem := scan(s)
	if problem != "" {
		return s, ""
	}
	c.change(key, func(v string) (string, bool) { secret = v; return "", false })
	return c.String(), secret
}

// WithPassword puts a password into a connection string that has none.
func WithPassword(s, password string) string {
	return with(s, "password", password)
}

// WithSSLPassword puts in the password of the client key.
func WithSSLPassword(s, password string) string { return with(s, "sslpassword", password) }

func with(s, key, value string) string {
	c, problem := scan(s)
	if problem != "" || value == "" {
		return s
	}
	c.change(key, func(string) (string, bool) { return "", false })
	if key == "password" && c.scheme != "" && c.user != "" {
		c.password, c.hasPassword = percent(value), true
		return c.String()
	}
	c.params = append(c.params, param{key: key, value: value})
	return c.String()
}

// connString is a connection string in pieces that String puts together again byte by byte, so that taking a password
// out changes nothing else.
type connString struct {
	scheme      string // "" for key=value
	hasUserinfo bool
	user        string // raw
	password    string // raw
	hasPassword bool
	authority   string  // raw hosts and ports
	path        string  // raw, with its slash
	params      []param // of the query, or all of key=value
}

type param struct {
	raw        string // as written; "" when made here
	key, value string // decoded
}

// change passes each occurrence of key to fn, which gives the new value or leaves it out.
func (c *connString) change(key string, fn func(value string) (string, bool)) {
	if key == "password" && c.scheme != "" && c.hasPassword {
		decoded, _ := url.PathUnescape(c.password)
		v, keep := fn(decoded)
		c.password, c.hasPassword = percent(v), keep
	}
	kept := c.params[:0]
	for _, p := range c.params {
		if p.key == key {
			v, keep := fn(p.value)
			if !keep {
				continue
			}
			p = param{key: key, value: v}
		}
		kept = append(kept, p)
	}
	c.params = kept
}

func (c *connString) secrets() []string {
	var out []string
	if c.hasPassword {
		decoded, _ := url.PathUnescape(c.password)
		out = append(out, c.password, decoded)
	}
	for _, p := range c.params {
		if p.key == "password" || p.key == "sslpassword" {
			out = append(out, p.value, p.raw)
		}
	}
	return out
}

func (c *connString) String() string {
	var b strings.Builder
	if c.scheme == "" {
		for i, p := range c.params {
			if i > 0 {
				b.WriteByte(' ')
			}
			if p.raw != "" {
				b.WriteString(p.raw)
				continue
			}
			b.WriteString(p.key + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p.value) + "'")
		}
		return b.String()
	}
	b.WriteString(c.scheme + "://")
	if c.hasUserinfo {
		b.WriteString(c.user)
		if c.hasPassword {
			b.WriteString(":" + c.password)
		}
		b.WriteByte('@')
	}
	b.WriteString(c.authority + c.path)
	for i, p := range c.params {
		b.WriteByte("?&"[min(i, 1)])
		if p.raw != "" {
			b.WriteString(p.raw)
			continue
		}
		b.WriteString(percent(p.key) + "=" + percent(p.value))
	}
	return b.String()
}

// percent encodes everything but letters, digits and "-._~". url.QueryEscape would write a space as +, which libpq
// takes for a plus sign.
func percent(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// scan takes a connection string apart. The problem is for people and repeats nothing of the string but its scheme.
func scan(s string) (c connString, problem string) {
	if strings.Contains(s, "\x00") {
		return c, "it holds a NUL byte"
	}
	for _, scheme := range []string{"postgres", "postgresql"} {
		if rest, ok := strings.CutPrefix(s, scheme+"://"); ok {
			c.scheme = scheme
			return c, c.scanURL(rest)
		}
		if strings.HasPrefix(s, scheme+":") || strings.HasPrefix(s, scheme+"/") {
			return c, "it has to begin with " + scheme + "://"
		}
	}
	// A key=value string may hold "://" only inside a value, that is after a "=".
	if before, _, ok := strings.Cut(s, "://"); ok && !strings.Contains(before, "=") {
		if len(before) <= 20 && strings.Trim(before, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.") == "" {
			return c, "its scheme is " + strconv.Quote(before) + ", not postgres or postgresql"
		}
		return c, "its scheme is not postgres or postgresql"
	}
	if strings.TrimSpace(s) == "" {
		return c, "it is empty"
	}
	return c, c.scanKeyValue(s)
}

func (c *connString) scanURL(p string) string {
	// libpq looks for the "@" before the first "/".
	if i := strings.IndexAny(p, "@/"); i >= 0 && p[i] == '@' {
		c.hasUserinfo = true
		c.user, c.password, c.hasPassword = strings.Cut(p[:i], ":")
		p = p[i+1:]
	}
	rest, query, hasQuery := strings.Cut(p, "?")
	c.authority = rest
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		c.authority, c.path = rest[:i], rest[i:]
	}
	switch {
	case strings.Contains(c.authority, "@"):
		return "an @ inside the user or password must be written %40"
	case strings.Contains(c.path, "@"):
		return "a / inside the user or password must be written %2F (and an @ inside the database name %40)"
	}
	if problem := scanAuthority(c.authority); problem != "" {
		return problem
	}
	for _, part := range []struct{ name, raw string }{
		{"user", c.user}, {"password", c.password}, {"host", c.authority}, {"database", c.path},
	} {
		if _, err := url.PathUnescape(part.raw); err != nil {
			return "its " + part.name + " has a % that is not followed by two hexadecimal digits (write %25 for a percent sign)"
		}
	}
	if !hasQuery || query == "" {
		return ""
	}
	for _, pair := range strings.Split(query, "&") {
		rawKey, rawValue, ok := strings.Cut(pair, "=")
		key, errKey := url.PathUnescape(rawKey)
		value, errValue := url.PathUnescape(rawValue)
		if !ok || errKey != nil || errValue != nil || key == "" {
			return "after the ? only name=value pairs separated by & can stand"
		}
		c.params = append(c.params, param{raw: pair, key: key, value: value})
	}
	return ""
}

func scanAuthority(authority string) string {
	for _, host := range strings.Split(authority, ",") {
		if strings.HasPrefix(host, "[") {
			end := strings.IndexByte(host, ']')
			if end < 0 {
				return "the [ of an IPv6 address has no ]"
			}
			host = host[end+1:]
		}
		_, port, _ := strings.Cut(host, ":")
		if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
			// The text is not shown: what stands in the port's place may be a password.
			return "its port is not a number between 1 and 65535 (an IPv6 address needs brackets; a / or @ inside a password must be written %2F, %40)"
		}
	}
	return ""
}

const spaces = " \t\n\r\v\f"

// scanKeyValue follows libpq: spaces may stand around "=", values may be quoted, a backslash takes the next byte. What
// only a URL has is no part of a key: user:password@host?sslmode=require would be one that is sent and shown.
func (c *connString) scanKeyValue(s string) string {
	s = strings.TrimLeft(s, spaces)
	for s != "" {
		start := s
		name, rest, ok := strings.Cut(s, "=")
		key := strings.Trim(name, spaces)
		if !ok || key == "" || strings.ContainsAny(key, spaces+"'\\:/@?&%") {
			return "it is neither a postgres:// URL nor a list of key=value"
		}
		rest = strings.TrimLeft(rest, spaces)
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		var value strings.Builder
		i, closed := 0, false
		for ; i < len(rest); i++ {
			if quoted && rest[i] == '\'' {
				closed = true
				i++
				break
			}
			if !quoted && strings.IndexByte(spaces, rest[i]) >= 0 {
				break
			}
			if rest[i] == '\\' {
				if i++; i == len(rest) {
					break
				}
			}
			value.WriteByte(rest[i])
		}
		if quoted && !closed {
			return "a quoted value has no closing quote"
		}
		i = min(i, len(rest))
		raw := start[:len(start)-len(rest)+i]
		c.params = append(c.params, param{raw: raw, key: key, value: value.String()})
		s = strings.TrimLeft(rest[i:], spaces)
	}
	return ""
}
