package pg

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

func TestLSN(t *testing.T) {
	for _, c := range []struct {
		text string
		want LSN
	}{{"0/0", 0}, {"16/B374D848", 0x16B374D848}, {"FFFFFFFF/FFFFFFFF", 1<<64 - 1}, {"0/1", 1}, {"1/0", 1 << 32}} {
		got, err := ParseLSN(c.text)
		if err != nil || got != c.want || got.String() != c.text {
			t.Errorf("%s: %d %s %v", c.text, got, got, err)
		}
	}
	if l, err := ParseLSN("00000001/0000000a"); err != nil || l != 1<<32+10 {
		t.Errorf("leading zeros: %v %v", l, err)
	}
	for _, bad := range []string{"", "/", "1", "1/", "/1", "1/2/3", "g/1", "123456789/0", "+1/0", "-1/0", "0x1/0", " 1/0", "1 /0", "1_0/0"} {
		if l, err := ParseLSN(bad); err == nil {
			t.Errorf("%q is read as %s", bad, l)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		if back, err := ParseLSN(l.String()); err != nil || back != l {
			t.Fatalf("%s is read as %s (%v)", l, back, err)
		}
	})
}

// unquote reads a quoted thing the way Postgres's scanner does and gives what is left behind it.
func unquote(s string, quote byte, backslash bool) (value, rest string, ok bool) {
	if s == "" || s[0] != quote {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && backslash && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
			b.WriteByte(quote)
		case s[i] == quote:
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

var nasty = rapid.StringOfN(rapid.OneOf(rapid.SampledFrom([]rune{'"', '\'', '\\', ';', '.', '-', '/', '*', ' ', '\n', '$', '%', 'E', 'é', '🐘'}), rapid.Rune()), 0, 80, -1)

// Whatever the text, a scanner that starts in front of the quoted form reads the text and stops exactly behind it.
func TestQuotingHoldsAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := nasty.Draw(t, "text")
		want := strings.ReplaceAll(s, "\x00", "")
		if v, rest, ok := unquote(Ident(s)+"X", '"', false); !ok || v != want || rest != "X" {
			t.Fatalf("Ident(%q) = %s", s, Ident(s))
		}
		if v, rest, ok := unquote(strings.TrimPrefix(Qualified(s, s), Ident(s)+"."), '"', false); !ok || v != want || rest != "" {
			t.Fatalf("Qualified(%q) = %s", s, Qualified(s, s))
		}
		lit := Literal(s)
		if body, escaped := strings.CutPrefix(lit, "E"); escaped {
			if v, rest, ok := unquote(body+"X", '\'', true); !ok || v != want || rest != "X" {
				t.Fatalf("Literal(%q) = %s", s, lit)
			}
			return
		}
		for _, backslash := range []bool{false, true} { // standard_conforming_strings on, off
			if v, rest, ok := unquote(lit+"X", '\'', backslash); !ok || v != want || rest != "X" {
				t.Fatalf("Literal(%q) = %s", s, lit)
			}
		}
	})
}

func TestShorten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringN(0, 100, -1).Draw(t, "name")
		short := Shorten(s)
		if len(short) > MaxName || utf8.ValidString(s) && !utf8.ValidString(short) {
			t.Fatalf("%q becomes %q, %d bytes", s, short, len(short))
		}
		if len(s) <= MaxName && short != s {
			t.Fatalf("%q fits and becomes %q", s, short)
		}
	})
	long := strings.Repeat("x", 70)
	if Shorten(long+"a") == Shorten(long+"b") {
		t.Error("two long names become one")
	}
}

func TestParseURL(t *testing.T) {
	t.Setenv("PGPASSFILE", "/nonexistent")
	t.Setenv("PGUSER", "env_user")
	for _, c := range []struct{ in, server, user, password string }{
		{"postgres://alice:s3cret@db.example:6543/shop", "db.example:6543/shop", "alice", "s3cret"},
		{"postgresql://alice:p%40s%2Fs%3Aw%25@db/shop", "db:5432/shop", "alice", "p@s/s:w%"},
		{"postgres://db/shop?user=bob&password=x%20y", "db:5432/shop", "bob", "x y"},
		{"postgres://alice:one@db/shop?password=two", "db:5432/shop", "alice", "two"},
		{"postgres://alice@[::1]:5433/shop", "[::1]:5433/shop", "alice", ""},
		{"postgres://alice@a:1,b:2/shop?sslmode=prefer", "a:1,b:2/shop", "alice", ""},
		{"postgres://db", "db:5432/env_user", "env_user", ""},
		{"host=db port=6543 dbname=shop user=alice password='it\\'s \\\\ x'", "db:6543/shop", "alice", `it's \ x`},
		{"host = db  dbname= 'a b' user=alice password = p\\ w", "db:5432/a b", "alice", "p w"},
		{"user=alice host=/var/run/postgresql dbname=x", "/var/run/postgresql:5432/x", "alice", ""},
	} {
		cfg, err := ParseURL(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if cfg.Server() != c.server || cfg.User() != c.user || cfg.pgx.Password != c.password {
			t.Errorf("%s: %s %s %q", c.in, cfg.Server(), cfg.User(), cfg.pgx.Password)
		}
		without, password := SplitPassword(c.in)
		if password != c.password {
			t.Errorf("%s: password %q is split off", c.in, password)
		}
		back, err := ParseURL(WithPassword(without, password))
		if err != nil || back.Server() != c.server || back.pgx.Password != c.password || back.User() != c.user {
			t.Errorf("%s comes back as %s: %v", c.in, WithPassword(without, password), err)
		}
	}
}

func TestBadURLs(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "it is empty",
		"oracle://root:hunter2@db/x": `its scheme is "oracle"`,
		"hunter2":                    "neither a postgres:// URL nor",
		"postgres:u:hunter2@db/x":    "it has to begin with postgres://",
		"postgresql:/u:hunter2@db/x?sslmode=disable":           "it has to begin with postgresql://",
		"postgres//u:hunter2@db/x":                             "it has to begin with postgres://",
		"u:hunter2@db/x":                                       "neither a postgres:// URL nor",
		"u:hunter2@db/x?sslmode=disable":                       "neither a postgres:// URL nor",
		"db/hunter2=x":                                         "neither a postgres:// URL nor",
		"postgres://u:hunter2@db:port/x":                       "its port is not a number",
		"postgres://u:hunter2@db:70000/x":                      "its port is not a number",
		"postgres://u:hunter2@x@db/x":                          "an @ inside the user or password",
		"postgres://u:hunter2/y@db/x":                          "inside the user or password",
		"postgres://u:1/hunter2@db/x":                          "a / inside the user or password",
		"postgres://u:hunter2%zz@db/x":                         "its password has a %",
		"postgres://u:hunter2@db/x?sslmode":                    "only name=value pairs",
		"postgres://u:hunter2@db/x?sslmode=no":                 "sslmode",
		"postgres://u:hunter2@db/x?target_session_attrs=wrong": "target_session_attrs value: wrong",
		"postgres://u:a@db/x?target_session_attrs=a":           "it cannot be parsed", // the driver's words hold the password
		"postgres://u:hunter2@[::1/x":                          "no ]",
		"postgres://u:hunter2\x00@db/x":                        "NUL",
		"host=db password='hunter2":                            "no closing quote",
		"host=db password hunter2":                             "list of key=value",
		"host=db password=hunter2 port=x":                      "invalid port",
		"host=db password=hunter2 connect_timeout=soon":        "connect_timeout",
	} {
		_, err := ParseURL(in)
		if !errs.Is(err, errs.BadURL) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
		if err != nil && strings.Contains(err.(*errs.Error).Render(), "hunter2") {
			t.Errorf("%s: the error holds the password: %v", in, err)
		}
		if strings.Contains(Redact(in), "hunter2") {
			t.Errorf("%s: Redact gives %s", in, Redact(in))
		}
	}
}

func TestUnreadableFiles(t *testing.T) {
	for _, in := range []string{"postgres://u:hunter2@db/x?sslmode=verify-full&sslrootcert=/no/such.pem", "host=db password=hunter2 sslmode=verify-full sslrootcert=/no/such.pem"} {
		_, err := ParseURL(in)
		e, ok := errs.As(err)
		if !ok || e.Code != errs.BadURL || !strings.Contains(e.Message, "sslrootcert names a file that cannot be read: open /no/such.pem") ||
			!strings.Contains(e.Hint, "sslrootcert") || strings.Contains(e.Render(), "hunter2") {
			t.Errorf("%s: %v, hint %q", in, err, e.Hint)
		}
	}
	both := "postgres://db/x?sslmode=require&sslcert=/no/c.pem&sslkey=/no/k.pem"
	if _, err := ParseURL(both); !errs.Is(err, errs.BadURL) || !strings.Contains(err.Error(), "sslkey names a file that cannot be read: open /no/k.pem") {
		t.Errorf("%s: %v", both, err)
	}
}

func TestOtherDatabases(t *testing.T) {
	for _, in := range []string{"mysql://root:hunter2@db/x", "MariaDB://db/x", "kafka://broker:9092"} {
		if _, err := ParseURL(in); !errs.Is(err, errs.NotBuiltYet) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestRedactAndSplit(t *testing.T) {
	for _, c := range []struct{ in, redacted, without, password string }{
		{"postgres://u:p@db:5432/x?sslmode=require", "postgres://u:xxxxx@db:5432/x?sslmode=require", "postgres://u@db:5432/x?sslmode=require", "p"},
		{"postgres://u@db/x", "postgres://u@db/x", "postgres://u@db/x", ""},
		{"postgres://db/x?password=p&a=b", "postgres://db/x?password=xxxxx&a=b", "postgres://db/x?a=b", "p"},
		{"postgres://db/x?pass%77ord=p", "postgres://db/x?password=xxxxx", "postgres://db/x", "p"},
		{"postgres://u@db/x?sslpassword=k", "postgres://u@db/x?sslpassword=xxxxx", "postgres://u@db/x?sslpassword=k", ""},
		{"host=db  password=p user=u", "host=db password='xxxxx' user=u", "host=db user=u", "p"},
		{"host=db password = 'p q' user='a b'", "host=db password='xxxxx' user='a b'", "host=db user='a b'", "p q"},
		{"postgres://u:${secret:db}@db/x", "postgres://u:xxxxx@db/x", "postgres://u@db/x", "${secret:db}"},
	} {
		if got := Redact(c.in); got != c.redacted {
			t.Errorf("Redact(%s) = %s, want %s", c.in, got, c.redacted)
		}
		if without, password := SplitPassword(c.in); without != c.without || password != c.password {
			t.Errorf("SplitPassword(%s) = %s, %q, want %s, %q", c.in, without, password, c.without, c.password)
		}
	}
	if without, key := SplitSSLPassword("postgres://u:p@db/x?sslpassword=k%20k&a=b"); without != "postgres://u:p@db/x?a=b" || key != "k k" {
		t.Errorf("sslpassword: %s, %q", without, key)
	}
	if got := WithSSLPassword("host=db", "k k"); got != "host=db sslpassword='k k'" {
		t.Errorf("WithSSLPassword gives %s", got)
	}
}

// A password put into any connection string is taken out whole, and nothing printed holds it.
func TestPasswordsGoInAndOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]string{"postgres://u@db/x", "postgres://db/x?user=u", "postgresql://u@db:1,e:2/x?a=b", "host=db user=u dbname=x", "dbname = 'x y' user=u"}).Draw(t, "base")
		password := "§" + strings.ReplaceAll(nasty.Draw(t, "password"), "\x00", "")
		full := WithPassword(base, password)
		cfg, err := ParseURL(full)
		if err != nil || cfg.pgx.Password != password {
			t.Fatalf("%s: %v", full, err)
		}
		without, got := SplitPassword(full)
		if got != password || without != base {
			t.Fatalf("%s is split into %s and %q", full, without, got)
		}
		if strings.Contains(Redact(full), "§") || strings.Contains(Redact(full), "%C2%A7") {
			t.Fatalf("Redact gives %s", Redact(full))
		}
	})
}

// Nothing behind the first colon of a broken URL's user part, and no value of password=, is ever repeated.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"postgres://u:§@h/d", "postgres://u:§/x@h", "host=h password=§", "password='§", "postgres://u:%§@h:x/", "://§", "postgres://u:§?a=b@h/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := ParseURL(s)
		if err == nil {
			without, password := SplitPassword(s)
			if _, again := SplitPassword(without); again != "" {
				t.Errorf("%q still holds a password after %q is taken out: %q", s, password, without)
			}
			return
		}
		if i := strings.Index(s, "§"); i >= 0 && i < 20 && strings.Contains(s[:i], "://u:") && strings.Contains(err.Error(), "§") {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// recordingNet notes what is dialed and connects nobody.
type recordingNet struct {
	env.Net
	dialed []string
}

func (n *recordingNet) DialContext(_ context.Context, network, address string) (net.Conn, error) {
	n.dialed = append(n.dialed, network+" "+address)
	return nil, errors.New("no network here")
}

// Names reach the environment's network unresolved, so that a simulator sees all of a connection attempt.
func TestConnectDialsThroughEnv(t *testing.T) {
	e := env.Real(nil)
	n := &recordingNet{}
	e.Net = n
	cfg, err := ParseURL("postgres://u:hunter2@no.such.host:1234,other:99/x?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	_, err = ConnectPgx(t.Context(), e, cfg, ConnectOptions{})
	if want := []string{"tcp no.such.host:1234", "tcp other:99"}; !slices.Equal(n.dialed, want) {
		t.Errorf("dialed %q, want %q", n.dialed, want)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "connect to Postgres at no.such.host:1234,other:99/x as u: ") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func TestMajorVersion(t *testing.T) {
	for in, want := range map[string]int{"15.18 (Debian 15.18-0+deb12u1)": 15, "18beta1": 18, "12.22": 12, "17": 17, "": 0, "x": 0} {
		if got := MajorVersion(in); got != want {
			t.Errorf("%q is %d", in, got)
		}
	}
}
