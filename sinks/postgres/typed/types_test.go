package typed_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sinks/postgres/typed"
)

// TestTypes: values of every type arrive as they are.
func TestTypes(t *testing.T) {
	dec := func(p, s int) row.Type { return row.Type{Kind: row.Decimal, Precision: p, Scale: s} }
	arr := func(e row.Type) row.Type { return row.Type{Kind: row.Array, Elem: &e} }
	of := func(k row.Kind) row.Type { return row.Type{Kind: k} }
	ts := row.Type{Kind: row.Timestamp, Precision: 6}
	ltz := row.Type{Kind: row.TimestampLTZ, Precision: 6}
	many := "99999999999999999999999999999999999999"
	d := newDatabase(t, `CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);`)
	for i, c := range []struct {
		column string
		typ    row.Type
		values []any
		want   []string // nil: the values
	}{
		{"boolean", of(row.Boolean), []any{"true", "false"}, nil},
		{"smallint", of(row.TinyInt), []any{"-128", "127"}, nil},
		{"smallint", of(row.SmallInt), []any{"-32768", "32767"}, nil},
		{"integer", of(row.Int), []any{"-2147483648", "2147483647"}, nil},
		{"bigint", of(row.BigInt), []any{"-9223372036854775808", "9223372036854775807"}, nil},
		{"integer", of(row.BigInt), []any{"-2147483648", "2147483647"}, nil},
		{"numeric(5, 2)", of(row.Int), []any{"-999", "7"}, []string{"-999.00", "7.00"}},
		{"positive", of(row.Int), []any{"7"}, nil},
		{"real", of(row.Float), []any{"NaN", "1.5", "-Infinity", "3.4e38"}, []string{"NaN", "1.5", "-Infinity", "3.4e+38"}},
		{"float8", of(row.Double), []any{"NaN", "-0.1", "Infinity", "5e-324"}, nil},
		{"numeric", dec(38, 0), []any{many, "-" + many, "0", "10000", "100000000"}, nil},
		{"numeric(38, 38)", dec(38, 38), []any{"0." + many, "-0." + many, "0.00000000000000000000000000000000000001", "0." + strings.Repeat("0", 38)}, nil},
		{"numeric(38, 3)", dec(38, 3), []any{many[:35] + ".001", "-0.010", "12345.678", "0.000", "1000.000", "-10000.100"}, nil},
		{"bigint", dec(20, 0), []any{"-9223372036854775808", "12"}, nil},
		{"numeric", of(row.Numeric), []any{"NaN", "123456789012345678901234567890123456789012345678901234567890.5", "-1"}, nil},
		{"text", str, []any{"", "a\tb\n\\ 'q' \"é\"", "{}", "NULL"}, nil},
		{"varchar(3)", str, []any{"abc", "äöü"}, nil},
		{"char(3)", row.Type{Kind: row.String, Precision: 3, Fixed: true}, []any{"abc"}, nil},
		{"mood", str, []any{"ok", "sad"}, nil},
		{"jsonb", str, []any{`{"a": [1, null]}`}, nil},
		{"inet", str, []any{"10.0.0.1/8"}, nil},
		{"uuid", str, []any{"00000000-0000-0000-0000-00000000000a"}, nil},
		{"uuid", of(row.UUID), []any{"00000000-0000-0000-0000-00000000000a"}, nil},
		{"json", of(row.JSON), []any{`{"a": 1}`}, nil},
		{"int[]", str, []any{"{1,2}"}, nil},
		{"bytea", of(row.Bytes), []any{[]byte{}, []byte{0, 255, '\\'}}, []string{`\x`, `\x00ff5c`}},
		{"date", of(row.Date), []any{"0001-01-01", "1999-12-31", "2000-01-01", "9999-12-31"}, nil},
		{"time", row.Type{Kind: row.Time, Precision: 6}, []any{"00:00:00", "23:59:59.999999"}, nil},
		{"timestamp", ts, []any{"0001-01-01 00:00:00", "1969-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"}, nil},
		{"timestamptz", ltz, []any{"1969-12-31 23:59:59.999999", "2026-05-01 10:00:00"}, []string{"1969-12-31 23:59:59.999999+00", "2026-05-01 10:00:00+00"}},
		{"interval", of(row.IntervalMonths), []any{14, -1}, []string{"1 year 2 mons", "-1 mons"}},
		{"interval", of(row.IntervalTime), []any{90_000_001, -1}, []string{"00:01:30.000001", "-00:00:00.000001"}},
		{"bigint[]", arr(bigint), []any{[]any{}, []any{1, nil, -3}}, []string{"{}", "{1,NULL,-3}"}},
		{"text[]", arr(str), []any{[]any{"", `a"b\c`, "NULL", "x,y", nil}}, []string{`{"","a\"b\\c","NULL","x,y",NULL}`}},
		{"mood[]", arr(str), []any{[]any{"ok", "sad"}}, []string{"{ok,sad}"}},
		{"numeric(5, 2)[]", arr(dec(5, 2)), []any{[]any{"1.50", "-0.01"}}, []string{"{1.50,-0.01}"}},
		{"bytea[]", arr(of(row.Bytes)), []any{[]any{[]byte{0, '"'}}}, []string{`{"\\x0022"}`}},
		{"timestamptz[]", arr(ltz), []any{[]any{"2026-05-01 10:00:00"}}, []string{`{"2026-05-01 10:00:00+00"}`}},
		{"boolean[]", arr(of(row.Boolean)), []any{[]any{"true", nil}}, []string{"{t,NULL}"}},
		{"int[]", arr(arr(of(row.Int))), []any{[]any{[]any{1, 2}, []any{3, 4}}}, []string{"{{1,2},{3,4}}"}},
	} {
		name := fmt.Sprintf("t%d", i)
		d.exec(fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, v %s)", name, c.column))
		table := []typed.Table{{Schema: "public", Name: name, Key: []int{0}, Columns: row.Schema{{Name: "id", Type: bigint.Required()}, {Name: "v", Type: c.typ}}}}
		s, at := d.open(table...)
		want := c.want
		changes := []change{put(0, 99, nil)}
		for i, v := range c.values {
			changes = append(changes, put(0, i, v))
			if c.want == nil {
				want = append(want, fmt.Sprint(v))
			}
		}
		if err := publish(s, at+1, table, 10, changes...); err != nil {
			t.Errorf("%s into %s: %v", c.typ, c.column, err)
		}
		got := d.texts("SELECT coalesce(v::text, '<none>') FROM " + name)
		want = append(slices.Clone(want), "<none>")
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s into %s gives\n%q, want\n%q", c.typ, c.column, got, want)
		}
		_ = s.Close(ctx)
	}
}

// TestNumbers: random decimals arrive as they are.
func TestNumbers(t *testing.T) {
	d := newDatabase(t, "")
	r := rand.New(rand.NewPCG(5, 6))
	for p := 1; p <= 38; p += 3 {
		for _, scale := range []int{0, r.IntN(p + 1), p} {
			d.exec(fmt.Sprintf("DROP TABLE IF EXISTS n; CREATE TABLE n (v numeric(%d, %d))", p, scale))
			table := []typed.Table{{Schema: "public", Name: "n", Columns: row.Schema{{Name: "v", Type: row.Type{Kind: row.Decimal, Precision: p, Scale: scale}}}}}
			s, at := d.open(table...)
			var want []string
			var changes []change
			for range 20 {
				digits := ""
				for range 1 + r.IntN(p) {
					digits += string(rune('0' + r.IntN(10)*r.IntN(2)))
				}
				digits = strings.TrimLeft(digits, "0")
				for len(digits) <= scale {
					digits = "0" + digits
				}
				if scale > 0 {
					digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
				}
				if r.IntN(2) == 0 && strings.Trim(digits, "0.") != "" {
					digits = "-" + digits
				}
				want, changes = append(want, digits), append(changes, put(0, digits))
			}
			if err := publish(s, at+1, table, 7, changes...); err != nil {
				t.Fatal(err)
			}
			slices.Sort(want)
			if got := d.texts("SELECT v::text FROM n"); !slices.Equal(got, want) {
				t.Errorf("(%d, %d):\n%q\n%q", p, scale, got, want)
			}
			_ = s.Close(ctx)
		}
	}
}

// TestRefusedAtOpen: a table that does not fit is told before anything is written, with the SQL that mends it.
func TestRefusedAtOpen(t *testing.T) {
	d := newDatabase(t, accountsDDL+`CREATE TABLE nokey (id int, owner text, balance int); CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, owner text, balance int);
		CREATE TABLE strict (id int PRIMARY KEY, owner text, balance int, due date NOT NULL); CREATE VIEW seen AS SELECT * FROM accounts;
		CREATE TABLE round (id int PRIMARY KEY, owner text, balance bigint, amount numeric(8, 1), at timestamp(3), real real);`)
	with := func(name string, more ...row.Field) typed.Table {
		x := accounts()
		x.Name, x.Columns = name, append(x.Columns, more...)
		return x
	}
	composite := accounts()
	composite.Key = []int{0, 1}
	for _, c := range []struct {
		table typed.Table
		says  []string
	}{
		{with("acounts"), []string{"there is no table public.acounts", "did you mean public.accounts", `CREATE TABLE "public"."acounts" ("id" bigint NOT NULL, "owner" text, "balance" bigint, PRIMARY KEY ("id"));`}},
		{with("nokey"), []string{"no unique index", `ALTER TABLE "public"."nokey" ADD PRIMARY KEY ("id");`}},
		{composite, []string{"PRIMARY KEY (id, owner)", `ADD UNIQUE ("id", "owner")`}},
		{with("unlogged"), []string{"SET LOGGED"}},
		{with("seen"), []string{"is no table"}},
		{with("strict"), []string{"column due", "DROP NOT NULL"}},
		{with("accounts", row.Field{Name: "Owner", Type: str}), []string{"no column Owner", "did you mean owner", `ADD COLUMN "Owner" text`}},
		{with("round", row.Field{Name: "amount", Type: row.Type{Kind: row.Decimal, Precision: 8, Scale: 2}}), []string{"would round", "DECIMAL(p, 1)", "TYPE numeric(8, 2)"}},
		{with("round", row.Field{Name: "at", Type: row.Type{Kind: row.Timestamp, Precision: 6}}), []string{"would round", "TIMESTAMP(3)"}},
		{with("round", row.Field{Name: "real", Type: row.Type{Kind: row.Double}}), []string{"double precision"}},
		{with("round", row.Field{Name: "amount", Type: row.Type{Kind: row.Map, Key: &str, Elem: &str}}), []string{"CAST it to STRING"}},
	} {
		s := d.sink(c.table)
		_, err := s.Open(ctx, 1, 0)
		wantCode(t, err, errs.TargetTable, c.says...)
		_ = s.Close(ctx)
	}
	if got := d.texts(`SELECT count(*)::text FROM pg_namespace WHERE nspname = '_weir'`); got[0] != "0" {
		t.Error("a ledger was made")
	}
}

// TestRefusedRows: what a table does not take is told with the row, nothing of the checkpoint is there, and when the table
// is mended the same checkpoint is written whole.
func TestRefusedRows(t *testing.T) {
	many := func(at int, bad change) (out []change) {
		for i := range 300 {
			if i == at {
				out = append(out, bad)
			}
			out = append(out, put(0, 1000+i, fmt.Sprint(i), i))
		}
		return out
	}
	for _, c := range []struct {
		ddl     string
		changes []change
		says    []string
		mend    string
	}{
		{"", many(137, put(0, 7, "toolong", 1)), []string{"the row with (id) = (7): value too long", "(column owner)"}, "ALTER TABLE accounts ALTER owner TYPE text"},
		{"", many(250, put(0, 7, "a", "3000000000")), []string{"the row with (id) = (7): integer out of range", "(column balance)"}, "ALTER TABLE accounts ALTER balance TYPE bigint"},
		{"ALTER TABLE accounts ALTER balance SET NOT NULL", many(0, put(0, 7, "a", nil)), []string{"the row with (id) = (7)", `"balance"`}, "ALTER TABLE accounts ALTER balance DROP NOT NULL"},
		{"ALTER TABLE accounts ADD CONSTRAINT few CHECK (balance < 500)", many(0, put(0, 7, "a", 501)), []string{"check constraint", "few"}, "ALTER TABLE accounts DROP CONSTRAINT few"},
		{"ALTER TABLE accounts ADD CONSTRAINT one UNIQUE (owner)", many(0, put(0, 7, "5", 501)), []string{"another row holds the value", "(owner)=(5)"}, "ALTER TABLE accounts DROP CONSTRAINT one"},
		{"CREATE TABLE o (owner varchar(5) PRIMARY KEY); ALTER TABLE accounts ADD CONSTRAINT fk FOREIGN KEY (owner) REFERENCES o", []change{put(0, 7, "a", 1)}, []string{"foreign key", "DEFERRABLE"}, "INSERT INTO o VALUES ('a')"},
		{"CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE accounts ALTER owner TYPE mood USING 'ok'", []change{put(0, 6, "ok", 1), put(0, 7, "bad", 1)}, []string{"the row with (id) = (7)", "mood", "(column owner)"}, "ALTER TYPE mood ADD VALUE 'bad'"},
	} {
		d := newDatabase(t, accountsDDL+c.ddl)
		tables := []typed.Table{accounts()}
		s, _ := d.open(tables...)
		wantCode(t, publish(s, 1, tables, 4096, c.changes...), errs.TargetRejected, c.says...)
		_ = s.Close(ctx)
		if got := d.texts("SELECT count(*)::text FROM accounts"); got[0] != "0" {
			t.Errorf("%s rows are there", got[0])
		}
		d.exec(c.mend)
		s, at := d.open(tables...)
		if at != 0 {
			t.Errorf("the ledger is at %d", at)
		}
		if err := publish(s, 1, tables, 4096, c.changes...); err != nil {
			t.Errorf("mended by %s: %v", c.mend, err)
		}
		if got := d.texts("SELECT count(*)::text FROM accounts"); got[0] != fmt.Sprint(len(c.changes)) {
			t.Errorf("mended, %s rows are there, want %d", got[0], len(c.changes))
		}
		_ = s.Close(ctx)
	}
}

// TestCascades: a row whose unique value moves is not deleted under rows of other tables that would go with it.
func TestCascades(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE accounts (id int PRIMARY KEY, owner varchar(5) UNIQUE, balance int); CREATE TABLE notes (account int REFERENCES accounts ON DELETE CASCADE)`)
	tables := []typed.Table{accounts()}
	s, _ := d.open(tables...)
	if err := publish(s, 1, tables, 10, put(0, 1, "a", 1), put(0, 2, "b", 1)); err != nil {
		t.Fatal(err)
	}
	d.exec("INSERT INTO notes VALUES (1), (2)")
	swap := []change{take(0, 1, "a", 1), put(0, 1, "b", 1), take(0, 2, "b", 1), put(0, 2, "a", 1)}
	wantCode(t, publish(s, 2, tables, 10, swap...), errs.TargetRejected, "DEFERRABLE")
	_ = s.Close(ctx)
	d.exec("ALTER TABLE accounts DROP CONSTRAINT accounts_owner_key; ALTER TABLE accounts ADD UNIQUE (owner) DEFERRABLE")
	s, _ = d.open(tables...)
	if err := publish(s, 2, tables, 10, swap...); err != nil {
		t.Fatal(err)
	}
	if got := d.texts(accountsText); !slices.Equal(got, []string{"1|b|1", "2|a|1"}) {
		t.Errorf("%q", got)
	}
	if got := d.texts("SELECT count(*)::text FROM notes"); got[0] != "2" {
		t.Error("rows of another table are gone")
	}
}
