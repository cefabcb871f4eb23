package pgwire

import (
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// compatible is the release of Postgres whose protocol and catalog are spoken.
const compatible = "15.0"

// defaults are the settings that a session begins with.
func defaults(version string) map[string]string {
	return map[string]string{
		"application_name": "", "client_encoding": "UTF8", "server_encoding": "UTF8", "datestyle": "ISO, MDY", "intervalstyle": "postgres",
		"timezone": "UTC", "extra_float_digits": "1", "search_path": `"$user", public`, "standard_conforming_strings": "on", "bytea_output": "hex",
		"integer_datetimes": "on", "is_superuser": "off", "session_authorization": "weir", "server_version": compatible + " (weir " + version + ")",
		"server_version_num": "150000", "transaction_isolation": "repeatable read", "default_transaction_isolation": "repeatable read",
		"transaction_read_only": "off", "default_transaction_read_only": "off", "default_transaction_deferrable": "off", "transaction_deferrable": "off",
		"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "client_min_messages": "notice",
		"row_security": "on", "max_identifier_length": "63", "jit": "off", "escape_string_warning": "on", "synchronize_seqscans": "on",
	}
}

// reported are the settings that clients are told of, at the start and when they change.
func reported() []string {
	return []string{"server_version", "server_encoding", "client_encoding", "application_name", "is_superuser", "session_authorization",
		"DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings"}
}

// set changes a setting.
func (x *session) set(name, value string) error {
	key := strings.ToLower(name)
	old, known := x.settings[key]
	if !known && !strings.Contains(key, ".") {
		return fail("42704", "unrecognized configuration parameter %q", name).withHint("SHOW ALL lists them")
	}
	only := func(allowed ...string) error {
		if slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, value) }) {
			return nil
		}
		return fail("22023", "invalid value for parameter %q: %q", name, value).withHint("it can only be " + old)
	}
	var err error
	switch key {
	case "server_version", "server_version_num", "server_encoding", "integer_datetimes", "is_superuser", "max_identifier_length":
		err = fail("55P02", "parameter %q cannot be changed", name)
	case "client_encoding":
		if err = only("UTF8", "UTF-8", "unicode"); err == nil {
			value = "UTF8"
		}
	case "datestyle":
		style := strings.ToUpper(strings.TrimSpace(strings.Split(value, ",")[0]))
		if style != "ISO" && style != "MDY" && style != "DEFAULT" {
			err = fail("22023", "invalid value for parameter %q: %q", name, value).withHint("dates are shown in ISO style")
		}
		value = old
	case "intervalstyle", "bytea_output":
		err = only(old)
		value = old
	case "standard_conforming_strings":
		err = only("on", "true", "1", "yes")
		value = old
	case "timezone":
		zone, zerr := time.LoadLocation(value)
		if zerr != nil || value == "" {
			return fail("22023", "invalid value for parameter %q: %q", name, value).withHint("write it as in Europe/Berlin, or UTC")
		}
		x.zone = zone
	case "statement_timeout":
		if _, terr := timeout(value); terr != nil {
			err = terr
		}
	case "transaction_isolation", "default_transaction_isolation":
		// Every level gives a snapshot, which is at least as much as was asked for.
		err = only("repeatable read", "read committed", "read uncommitted", "serializable")
	}
	if err != nil {
		return err
	}
	x.settings[key] = value
	return nil
}

// timeout reads a duration as Postgres does: milliseconds, or with a unit.
func timeout(value string) (time.Duration, error) {
	v := strings.ReplaceAll(value, " ", "")
	if n, err := strconv.Atoi(v); err == nil && n >= 0 {
		return time.Duration(n) * time.Millisecond, nil
	}
	d, err := time.ParseDuration(strings.Replace(v, "min", "m", 1))
	if err != nil || d < 0 {
		return 0, fail("22023", "invalid value for parameter %q: %q", "statement_timeout", value)
	}
	return d, nil
}

// utility understands a statement that is no query.
func (x *session) utility(text string, w []string) (*prepared, error) {
	second := ""
	if len(w) > 1 {
		second = w[1]
	}
	switch w[0] {
	case "SET":
		return x.setStatement(text)
	case "RESET":
		name := strings.ToLower(strings.Trim(rest(text, w[0]), `" ;`))
		return &prepared{tag: "RESET", act: func(x *session) error {
			d := defaults(x.server.opts.Version)
			for k, v := range d {
				if name == "all" || k == name {
					if k == "session_authorization" || k == "application_name" && name == "all" {
						continue
					}
					x.settings[k] = v
				}
			}
			if name == "all" || name == "timezone" {
				x.zone = time.UTC
			}
			return nil
		}}, nil
	case "SHOW":
		return x.show(text)
	case "BEGIN", "START":
		tag := "BEGIN"
		if w[0] == "START" {
			if second != "TRANSACTION" {
				break
			}
			tag = "START TRANSACTION"
		}
		upper := strings.ToUpper(strings.Join(strings.Fields(text), " "))
		readOnly := strings.Contains(upper, "READ ONLY")
		return &prepared{tag: tag, act: func(x *session) error {
			if x.tx == idle {
				if x.writes == nil {
					x.release() // the block reads what is newest when it reads first
				}
				x.tx, x.readOnly = inBlock, readOnly
			}
			return nil
		}}, nil
	case "COMMIT", "END", "ROLLBACK", "ABORT":
		if second == "TO" || second == "PREPARED" {
			return nil, errs.New(errs.NotBuiltYet, "%s %s is not built yet", w[0], second)
		}
		p := &prepared{tag: "COMMIT", ends: true}
		if w[0] == "ROLLBACK" || w[0] == "ABORT" || x.tx == failed {
			p.tag = "ROLLBACK"
		}
		p.commits = p.tag == "COMMIT"
		p.act = func(x *session) error {
			if x.tx == idle {
				x.back.Send(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "25P01", Message: "there is no transaction in progress"})
			}
			x.tx = idle
			x.release()
			return nil
		}
		return p, nil
	case "DISCARD":
		return &prepared{tag: "DISCARD ALL", act: func(x *session) error {
			clear(x.statements)
			clear(x.portals)
			return nil
		}}, nil
	case "DEALLOCATE":
		name := strings.Trim(strings.TrimPrefix(strings.TrimSpace(rest(text, w[0])), "PREPARE "), `" ;`)
		return &prepared{tag: "DEALLOCATE", act: func(x *session) error {
			if strings.EqualFold(name, "all") {
				clear(x.statements)
				return nil
			}
			if x.statements[name] == nil {
				return fail("26000", "prepared statement %q does not exist", name)
			}
			delete(x.statements, name)
			return nil
		}}, nil
	case "UNLISTEN":
		return &prepared{tag: "UNLISTEN", act: func(*session) error { return nil }}, nil
	case "EXPLAIN", "DECLARE", "FETCH", "CLOSE", "SAVEPOINT", "RELEASE", "PREPARE", "LISTEN", "NOTIFY", "ANALYZE", "VACUUM", "LOCK", "DO", "CALL", "GRANT",
		"REVOKE", "COMMENT":
		return nil, errs.New(errs.NotBuiltYet, "%s is not built yet", w[0])
	}
	return nil, fail("42601", "syntax error at or near %q", w[0]).withHint("views are read with SELECT")
}

// rest is what follows the first word of a statement.
func rest(text, word string) string {
	i := strings.Index(strings.ToUpper(text), word)
	return strings.TrimSpace(text[i+len(word):])
}

// setStatement understands SET.
func (x *session) setStatement(text string) (*prepared, error) {
	s := strings.TrimSpace(strings.TrimRight(rest(text, "SET"), "; \n"))
	for _, scope := range []string{"SESSION", "LOCAL"} {
		if len(s) > len(scope) && strings.EqualFold(s[:len(scope)+1], scope+" ") {
			s = strings.TrimSpace(s[len(scope):])
		}
	}
	upper := strings.ToUpper(s)
	set := func(name, value string) *prepared {
		return &prepared{tag: "SET", act: func(x *session) error {
			if strings.EqualFold(value, "DEFAULT") {
				value = defaults(x.server.opts.Version)[strings.ToLower(name)]
			}
			if err := x.set(name, value); err != nil {
				return err
			}
			for _, k := range reported() {
				if strings.EqualFold(k, name) {
					x.back.Send(&pgproto3.ParameterStatus{Name: k, Value: x.settings[strings.ToLower(k)]})
				}
			}
			return nil
		}}
	}
	switch {
	case strings.HasPrefix(upper, "TIME ZONE "):
		v := unquote(s[len("TIME ZONE "):])
		if strings.EqualFold(v, "LOCAL") {
			v = "UTC"
		}
		return set("TimeZone", v), nil
	case strings.HasPrefix(upper, "NAMES "):
		return set("client_encoding", unquote(s[len("NAMES "):])), nil
	case strings.HasPrefix(upper, "TRANSACTION "), strings.HasPrefix(upper, "CHARACTERISTICS "):
		return &prepared{tag: "SET", act: func(*session) error { return nil }}, nil
	}
	i := strings.IndexByte(s, '=')
	value := i + 1
	if to := strings.Index(upper, " TO "); to >= 0 && (i < 0 || to < i) {
		i, value = to, to+len(" TO ")
	}
	if i < 0 {
		return nil, fail("42601", "syntax error in SET").withHint("write SET name = value")
	}
	return set(unquote(s[:i]), unquote(s[value:])), nil
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		q := s[:1]
		return strings.ReplaceAll(s[1:len(s)-1], q+q, q)
	}
	return s
}

// show understands SHOW.
func (x *session) show(text string) (*prepared, error) {
	name := strings.ToLower(strings.Join(strings.Fields(unquote(strings.TrimRight(rest(text, "SHOW"), "; \n"))), " "))
	switch name {
	case "transaction isolation level":
		name = "transaction_isolation"
	case "time zone":
		name = "timezone"
	case "all":
		p := &prepared{tag: "SHOW", columns: []column{textColumn("name"), textColumn("setting")}}
		p.rows = func(x *session) *row.Batch {
			var rows [][]any
			for k, v := range x.settings {
				rows = append(rows, []any{k, v})
			}
			sort.Slice(rows, func(i, j int) bool { return rows[i][0].(string) < rows[j][0].(string) })
			return batchOf(p.types0(), rows)
		}
		return p, nil
	}
	if _, ok := x.settings[name]; !ok {
		return nil, fail("42704", "unrecognized configuration parameter %q", name).withHint("SHOW ALL lists them")
	}
	shown := name
	for _, k := range reported() {
		if strings.EqualFold(k, name) {
			shown = k
		}
	}
	p := &prepared{tag: "SHOW", columns: []column{textColumn(shown)}}
	p.rows = func(x *session) *row.Batch { return batchOf(p.types0(), [][]any{{x.settings[name]}}) }
	return p, nil
}
