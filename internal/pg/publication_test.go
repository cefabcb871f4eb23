package pg_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/pg"
)

// TestConditions: the server says whether two conditions are one.
func TestConditions(t *testing.T) {
	s := server(t, 15)
	conn := connect(t, s.CreateDatabase(t, "conditions"))
	exec(t, conn, `CREATE TYPE public.mood AS ENUM ('ok', 'bad')`)
	columns := []string{"id", "r", "V x", "m", "at"}
	types := []string{"integer", "text", "character varying(9)", "public.mood", "timestamp with time zone"}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"r = 'eu'", "(r = 'eu'::text)", true},
		{"r = 'eu'", "t.r = 'e' || 'u' -- as it is", true},
		{"r = 'eu'", "r = 'us'", false},
		{"r = 'eu'", "", false},
		{"", "1 = 1", true},
		{"", "id IS NOT NULL", false},
		{"id > 5", "NOT id <= 5", true},
		{"id > 5", "id >= 5", false},
		{`"V x" = 'a'`, `(("V x")::text = 'a'::text)`, true},
		{"m = 'ok'", "m = 'ok'::public.mood", true},
		{"m = 'ok'", "m = 'bad'", false},
		{"at > '2024-01-01 00:00:00+00'", "at > '2024-01-01 01:00:00+01'", true},
		{"r = 'eu' AND id > 5", "r = 'eu'", false},
		{"false", "id > 5 AND false", true},
	} {
		a, err := pg.Condition(t.Context(), conn, "t", columns, types, c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := pg.Condition(t.Context(), conn, "t", columns, types, c.b)
		if err != nil {
			t.Fatal(err)
		}
		if (a == b) != c.same {
			t.Errorf("%q and %q: the same = %v\n%s\n%s", c.a, c.b, a == b, a, b)
		}
	}
	if _, err := pg.Condition(t.Context(), conn, "t", columns, types, "x = 1"); err == nil || !strings.Contains(err.Error(), `"x" does not exist`) {
		t.Errorf("a column that is not there: %v", err)
	}
}

func TestHints(t *testing.T) {
	for code, want := range map[string]string{"28P01": "password", "28000": "ALTER ROLE", "3D000": "name of the database", "53300": "max_connections", "57P03": ""} {
		err := error(&pgconn.PgError{Code: code, Message: "refused"})
		if got := strings.TrimPrefix(pg.Hinted(err), err.Error()); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q", code, got)
		}
	}
	if got := pg.Hinted(&pgconn.PgError{Code: "28000", Message: `no pg_hba.conf entry for host "::1"`}); !strings.Contains(got, "has to let") {
		t.Errorf("pg_hba.conf: %q", got)
	}
	if got := pg.Hinted(errors.New("x")); got != "x" {
		t.Errorf("an error without a known cause: %q", got)
	}
}

func TestDottedNames(t *testing.T) {
	for want, n := range map[string][2]string{`public.a`: {"public", "a"}, `"a.b"."c.d"`: {"a.b", "c.d"}, `public."a""b"`: {"public", `a"b`}, `My Schema.t`: {"My Schema", "t"}} {
		if got := pg.DottedName(n[0], n[1]); got != want {
			t.Errorf("%q: %s, want %s", n, got, want)
		}
	}
}
