package pg_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

// edges are values at the edges of the types that travel in binary. None needs more than the oldest version.
var edges = map[string][]string{
	"bool": {"t", "f"}, "bytea": {``, `\x00`, `\xff00fe`}, `"char"`: {"", "a", "~"}, "name": {"", strings.Repeat("n", 63), "ü"},
	"int8": {"-9223372036854775808", "9223372036854775807"}, "int2": {"-32768", "32767"}, "int4": {"-2147483648", "2147483647"},
	"text": {"", "\U0010ffff", " a\nb\t", `\`}, "oid": {"0", "4294967295"}, "tid": {"(0,0)", "(4294967295,65535)"},
	"xid": {"0", "4294967295"}, "cid": {"7"}, "xid8": {"18446744073709551615"},
	"json": {`{"a":1,"a":2}`, `"\u0000"`, ` [1 ,2]`}, "jsonb": {`{"b":1,"aa":2,"a":1e400}`, `null`, `"x"`},
	"point": {"(NaN,Infinity)", "(-0,1e-300)"}, "lseg": {"[(0,0),(1,1)]"}, "path": {"[(0,0),(1,1)]", "((0,0),(1,1))"}, "box": {"(1,2),(3,-4)"},
	"polygon": {"((0,0),(1,1),(1,0))"}, "line": {"{1,2,3}", "{0.1,-1,1e-20}"}, "circle": {"<(1,2),3>"},
	"cidr": {"10.0.0.0/8", "::/0"}, "inet": {"10.1.2.3/8", "::ffff:1.2.3.4/128", "0.0.0.0/0"}, "macaddr": {"08:00:2b:01:02:03"}, "macaddr8": {"08:00:2b:01:02:03:04:05"},
	"float4": {"NaN", "-Infinity", "-0", "1.17549435e-38", "3.4028235e38", "1e-45"}, "float8": {"NaN", "Infinity", "-0", "4.9e-324", "1.7976931348623157e308", "0.1"},
	"numeric":     {"NaN", "0.000", "-0.00", "1e-1000", "1e1000", "12345678901234567890.123456789", "-1e-16383"},
	"bpchar":      {"a    ", "     ", ""},
	"varchar":     {"", "ß"},
	"bit":         {"1"},
	"varbit":      {"", "1", strings.Repeat("01", 100)},
	"date":        {"infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"},
	"time":        {"24:00:00", "00:00:00.000001"},
	"timestamp":   {"infinity", "-infinity", "4713-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999"},
	"timestamptz": {"infinity", "2024-03-31 02:30:00+01", "4713-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00"},
	"timetz":      {"24:00:00+05:30", "23:59:59.999999+15:59:59", "00:00:00-15:59:59"},
	"uuid":        {"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"},
	"pg_lsn":      {"0/0", "FFFFFFFF/FFFFFFFF"}, "txid_snapshot": {"10:20:10,14"}, "pg_snapshot": {"10:20:10,14", "10:10:"},
	"tsvector":  {`'a b':1A,2 'c':3`, ``, `'zz' 'a'`},
	"int4range": {"empty", "(,)", "[1,5)"}, "numrange": {"[1.50,2.0]", "(,3)"}, "tsrange": {"[2020-01-01,infinity]"}, "tstzrange": {"(,2020-01-01 00:00+00]"},
	"daterange": {"[2020-01-01,2020-01-05)", "[,infinity)"}, "int8range": {"[,5)"},
	"int4multirange": {"{}", "{[1,2),[5,)}"}, "nummultirange": {"{[1.0,2.0]}"}, "tsmultirange": {"{[2020-01-01,2021-01-01]}"},
	"tstzmultirange": {"{[2020-01-01 00:00+00,2021-01-01 00:00+00]}"}, "datemultirange": {"{[2020-01-01,2021-01-01)}"}, "int8multirange": {"{[1,2)}"},
	// beyond the plain scalars
	"int4[]": {"{}", "{NULL,1}", "[0:1]={1,2}", "{{1,2},{3,4}}"}, "text[]": {`{NULL,"NULL",""}`, `{"a\"b","c\\d"}`}, "numrange[]": {`{"[1,2)",empty}`},
	"app.mood": {"sad", "ok, fine", ""}, "app.digits": {"12"}, "app.list": {"{1,2}"}, "app.floats": {"[0.1,NaN)", "empty"},
}

var since = map[string]testenv.Version{"xid8": 13, "pg_snapshot": 13, "int4multirange": 14, "nummultirange": 14, "tsmultirange": 14,
	"tstzmultirange": 14, "datemultirange": 14, "int8multirange": 14}

const userTypes = `CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('sad', 'ok, fine', ''); CREATE DOMAIN app.digits AS text CHECK (VALUE ~ '^\d+$');
	CREATE DOMAIN app.list AS int[]; CREATE TYPE app.floats AS RANGE (SUBTYPE = float8);`

// typed gives types by their SQL names.
func typed(t *testing.T, conn *pgx.Conn, names []string) map[string]pg.Type {
	t.Helper()
	var columns []string
	for i, n := range names {
		columns = append(columns, fmt.Sprintf("c%d %s", i, n))
	}
	exec(t, conn, "DROP TABLE IF EXISTS app.typed; CREATE TABLE app.typed ("+strings.Join(columns, ", ")+")")
	for _, x := range loadAll(t, conn) {
		if x.Name == "typed" {
			out := map[string]pg.Type{}
			for i, n := range names {
				out[n] = x.Columns[i].Type
			}
			return out
		}
	}
	t.Fatal("no table")
	return nil
}

// Every type that BinaryExact lets through keeps its text when one server writes it in binary and another reads it,
// from each end of the version range to the other.
func TestBinaryKeepsTheText(t *testing.T) {
	for _, pair := range [][2]testenv.Version{{12, 18}, {18, 12}, {15, 18}, {18, 15}} {
		t.Run(fmt.Sprintf("%d to %d", pair[0], pair[1]), func(t *testing.T) {
			from := connect(t, server(t, pair[0]).CreateDatabase(t, "from"))
			to := connect(t, server(t, pair[1]).CreateDatabase(t, "to"))
			exec(t, from, userTypes)
			// Another order of creation gives user types other oids on the two sides.
			exec(t, to, "CREATE SCHEMA filler; CREATE TYPE filler.a AS ENUM ('x'); CREATE TYPE filler.b AS ENUM ('x');"+userTypes)
			var names []string
			for n := range edges {
				if since[n] <= min(pair[0], pair[1]) {
					names = append(names, n)
				}
			}
			slices.Sort(names)
			types := typed(t, from, names)
			for _, n := range names {
				if !pg.BinaryExact(types[n]) {
					t.Errorf("%s does not travel in binary", n)
				}
				want, got := binaryCopy(t, from, to, n, edges[n])
				if want != got {
					t.Errorf("%s: %s was written and %s is read", n, want, got)
				}
			}
		})
	}
}

// binaryCopy gives the texts of values before and after they went from one server to the other by COPY BINARY.
func binaryCopy(t *testing.T, from, to *pgx.Conn, typ string, values []string) (before, after string) {
	t.Helper()
	exec(t, from, "CREATE TEMPORARY TABLE b (n int, v "+typ+")")
	exec(t, to, "CREATE TEMPORARY TABLE b (n int, v "+typ+")")
	defer exec(t, from, "DROP TABLE b")
	defer exec(t, to, "DROP TABLE b")
	for i, v := range values {
		exec(t, from, fmt.Sprintf("INSERT INTO b VALUES (%d, %s)", i, pg.Literal(v)))
	}
	var data bytes.Buffer
	if _, err := from.PgConn().CopyTo(t.Context(), &data, "COPY b TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatalf("%s: %v", typ, err)
	}
	if _, err := to.PgConn().CopyFrom(t.Context(), &data, "COPY b FROM STDIN (FORMAT binary)"); err != nil {
		t.Fatalf("%s: %v", typ, err)
	}
	return texts(t, from), texts(t, to)
}

// binaryForm gives a value as COPY BINARY writes it.
func binaryForm(t *testing.T, conn *pgx.Conn, typ, value string) []byte {
	t.Helper()
	var data bytes.Buffer
	if _, err := conn.PgConn().CopyTo(t.Context(), &data, "COPY (SELECT "+pg.Literal(value)+"::"+typ+") TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// accepts reads such a value into a table b.
func accepts(t *testing.T, conn *pgx.Conn, typ string, data []byte) bool {
	t.Helper()
	exec(t, conn, "DROP TABLE IF EXISTS b; CREATE TEMPORARY TABLE b (v "+typ+")")
	_, err := conn.PgConn().CopyFrom(t.Context(), bytes.NewReader(data), "COPY b FROM STDIN (FORMAT binary)")
	return err == nil
}

func texts(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var s string
	if err := conn.QueryRow(t.Context(), "SELECT string_agg(quote_nullable(v::text), ' ' ORDER BY n) FROM b").Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// The list of built-in types is complete: each of its numbers is a type that the newest server can send and receive,
// and each has its edge values above.
func TestBinaryTypesAreCovered(t *testing.T) {
	conn := connect(t, server(t, 18).CreateDatabase(t, "covered"))
	for _, oid := range pg.BinaryOIDs() {
		var name string
		var ok bool
		err := conn.QueryRow(t.Context(), "SELECT format_type(oid, NULL), typsend <> 0 AND typreceive <> 0 FROM pg_type WHERE oid = $1::int8", int64(oid)).Scan(&name, &ok)
		if err != nil || !ok {
			t.Errorf("%d: %s, can be sent: %v, %v", oid, name, ok, err)
			continue
		}
		found := false
		for n := range edges {
			var same bool
			if !strings.HasPrefix(n, "app.") {
				if err := conn.QueryRow(t.Context(), "SELECT to_regtype("+pg.Literal(n)+") = $1::int8::oid", int64(oid)).Scan(&same); err != nil {
					t.Fatal(err)
				}
				found = found || same
			}
		}
		if !found {
			t.Errorf("%s has no edge values", name)
		}
	}
}

// What stays text has its reason. For interval and for arrays of user types the reason is shown.
func TestTextOnly(t *testing.T) {
	old, new := connect(t, server(t, 12).CreateDatabase(t, "text")), connect(t, server(t, 18).CreateDatabase(t, "text"))
	for _, conn := range []*pgx.Conn{old, new} {
		exec(t, conn, userTypes+"CREATE EXTENSION hstore WITH SCHEMA app; CREATE EXTENSION citext WITH SCHEMA app; CREATE TYPE app.comp AS (a int); CREATE DOMAIN app.span AS interval")
	}
	names := []string{"interval", "interval[]", "money", "money[]", "xml", "regclass", "regtype", "regclass[]", "aclitem", "jsonpath", "tsquery", "tsquery[]", "int2vector", "oidvector", "refcursor",
		"app.mood[]", "app.digits[]", "app.comp", "app.comp[]", "app.hstore", "app.hstore[]", "app.citext", "app.span"}
	for n, typ := range typed(t, old, names) {
		if !pg.TextOnly(typ) {
			t.Errorf("%s travels in binary", n)
		}
	}
	if data := binaryForm(t, new, "interval", "infinity"); accepts(t, old, "interval", data) {
		if res, err := old.PgConn().Exec(t.Context(), "SELECT v::text FROM b").ReadAll(); err == nil && string(res[0].Rows[0][0]) == "infinity" {
			t.Error("interval keeps its text after all")
		}
	} else {
		t.Error("interval is refused and could travel in binary")
	}
	if accepts(t, new, "tsquery", binaryForm(t, new, "tsquery", "")) {
		t.Error("tsquery could travel in binary")
	}
	exec(t, old, "CREATE TYPE app.another AS ENUM ('a')") // different oids
	exec(t, old, "DROP TYPE app.mood CASCADE; CREATE TYPE app.mood AS ENUM ('sad'); CREATE TABLE app.arr (v app.mood[])")
	exec(t, new, "CREATE TABLE app.arr (v app.mood[]); INSERT INTO app.arr VALUES ('{sad}')")
	var data bytes.Buffer
	if _, err := new.PgConn().CopyTo(t.Context(), &data, "COPY app.arr TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	if _, err := old.PgConn().CopyFrom(t.Context(), &data, "COPY app.arr FROM STDIN (FORMAT binary)"); err == nil {
		t.Error("an array of enums is accepted in binary from a server with other oids")
	}
}

// When its caller gives up, an SQL connection has the server end the statement.
func TestGivingUpCancelsTheStatement(t *testing.T) {
	url := server(t, 15).CreateDatabase(t, "cancel")
	watcher := connect(t, url)
	cfg, err := pg.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pg.ConnectPgx(t.Context(), env.Real(nil), cfg, pg.ConnectOptions{AppName: "gives up"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := conn.Exec(ctx, "SELECT pg_sleep(1000)"); done <- err }()
	running := func() (n int) {
		if err := watcher.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity, pg_sleep(0.005) WHERE application_name = 'gives up' AND state = 'active'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for running() == 0 {
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled statement returned no error")
	}
	for running() > 0 {
	}
}
