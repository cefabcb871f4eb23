package typed_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/cdc/postgres/typed"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

// database is a database of a test, with an outsider's connection.
type database struct {
	t    *testing.T
	url  string
	cfg  *pg.Config
	conn *pgx.Conn
	slot string
}

func newDatabase(t *testing.T, ddl string) *database {
	server := testenv.Shared(t, 15, testenv.FsyncOff())
	d := &database{t: t, url: server.CreateDatabase(t, "typed")}
	d.slot = "slot_" + testenv.DatabaseOf(t, d.url)
	var err error
	if d.cfg, err = pg.ParseURL(d.url); err != nil {
		t.Fatal(err)
	}
	if d.conn, err = pgx.Connect(context.Background(), d.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Drop(context.Background(), d.conn, d.slot, "p"); err != nil {
			t.Error(err)
		}
		_ = d.conn.Close(context.Background())
	})
	d.exec(ddl)
	return d
}

func (d *database) exec(sql string) {
	d.t.Helper()
	if _, err := d.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		d.t.Fatalf("%.200s: %v", sql, err)
	}
}

func (d *database) texts(sql string) []string {
	d.t.Helper()
	rows, err := d.conn.Query(context.Background(), sql)
	if err != nil {
		d.t.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	return texts
}

func (d *database) source(tables ...typed.Table) *typed.Source {
	return typed.New(env.Real(nil), typed.Options{Config: d.cfg, Slot: d.slot, Publication: "p", Tables: tables,
		HeartbeatPeriod: 100 * time.Millisecond, StatusPeriod: 100 * time.Millisecond, RangeRows: 300, PartialRows: 1000})
}

// model is what a reader makes of what the source gives: of a table with a key the row of each key, otherwise how often
// each row is there.
type model struct {
	tables []typed.Table
	rows   []map[string][]string
	counts []map[string]int64
	moved  []string
	agrees bool // the tables do: see until
}

func newModel(tables ...typed.Table) *model {
	m := &model{tables: tables}
	for range tables {
		m.rows, m.counts = append(m.rows, map[string][]string{}), append(m.counts, map[string]int64{})
	}
	return m
}

func (m *model) clone() *model {
	c := newModel(m.tables...)
	for i := range m.tables {
		c.rows[i], c.counts[i] = maps.Clone(m.rows[i]), maps.Clone(m.counts[i])
	}
	return c
}

func text(typ row.Type, v *row.Vector, i int) string {
	switch {
	case v.Nulls.Is(i):
		return "NULL"
	case typ.Kind == row.Bytes:
		return hex.EncodeToString(v.Bytes(i))
	}
	return string(row.AppendText(nil, typ, v, i, nil))
}

func (m *model) apply(table int, b *row.Batch) error {
	t := &m.tables[table]
	for k := range b.Rows() {
		i := b.At(k)
		var r, key []string
		for c, col := range t.Columns {
			r = append(r, text(col.Type, b.Cols[c], i))
		}
		if t.Key == nil {
			k := strings.Join(r, "|")
			if m.counts[table][k] += b.Weight(i); m.counts[table][k] == 0 {
				delete(m.counts[table], k)
			}
			continue
		}
		for _, c := range t.Key {
			key = append(key, r[c])
		}
		id, unsent := strings.Join(key, "|"), b.Cols[len(t.Columns)].Int64[i]
		old, moved := m.rows[table][id], m.moved
		m.moved = nil
		if b.Weight(i) < 0 {
			if unsent == -1 {
				m.moved = old
			}
			delete(m.rows[table], id)
			continue
		}
		if moved == nil {
			moved = old
		}
		for c := range t.Columns {
			if unsent&(1<<c) != 0 {
				if moved == nil {
					return fmt.Errorf("row %v of table %s leaves something out and is not known", r, t)
				}
				r[c] = moved[c]
			}
		}
		m.rows[table][id] = r
	}
	return nil
}

// empty takes away what the source says is gone.
func (m *model) empty(table int, gone *dataflow.Emptied) {
	maps.DeleteFunc(m.rows[table], func(_ string, r []string) bool {
		if gone.All() {
			return true
		}
		var n int64
		fmt.Sscan(r[gone.Column], &n)
		return (gone.After == nil || n > *gone.After) && (gone.Through == nil || n <= *gone.Through)
	})
}

func (m *model) dump(table int) (out []string) {
	for _, r := range m.rows[table] {
		out = append(out, strings.Join(r, "|"))
	}
	for r, n := range m.counts[table] {
		for range n {
			out = append(out, r)
		}
		if n < 0 {
			out = append(out, fmt.Sprintf("%d times %s", n, r))
		}
	}
	slices.Sort(out)
	return out
}

var (
	bigint = row.Type{Kind: row.BigInt}
	str    = row.Type{Kind: row.String}
	items  = typed.Table{Schema: "public", Name: "items", Key: []int{1, 0}, Columns: row.Schema{{Name: "id", Type: bigint.Required()}, {Name: "region", Type: str.Required()},
		{Name: "big", Type: str}, {Name: "price", Type: row.Type{Kind: row.Decimal, Precision: 10, Scale: 2}}, {Name: "at", Type: row.Type{Kind: row.TimestampLTZ, Precision: 6}},
		{Name: "raw", Type: row.Type{Kind: row.Bytes}}, {Name: "whence", Type: str}}, Metadata: map[int]string{6: "table_name"}}
	logs     = typed.Table{Schema: "public", Name: "Logs", Columns: row.Schema{{Name: "n", Type: bigint}, {Name: "message", Type: str}}}
	accounts = typed.Table{Schema: "public", Name: "accounts", Key: []int{0}, Columns: row.Schema{{Name: "id", Type: bigint.Required()}, {Name: "balance", Type: bigint}}}
)

const itemsDDL = `
CREATE TABLE items (unused int, region text NOT NULL, id int NOT NULL, big text, price numeric(10, 2), at timestamptz, raw bytea, other text, PRIMARY KEY (id, region));
ALTER TABLE items ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL;
CREATE TABLE "Logs" (n int, message text);
ALTER TABLE "Logs" REPLICA IDENTITY FULL;
ALTER TABLE "Logs" ALTER message SET STORAGE EXTERNAL;
CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 3000) i;
INSERT INTO items SELECT 1, 'eu', i, CASE WHEN i % 3 = 0 THEN repeat('x', 3000) END, i / 7.0, now(), '\x00ff', repeat('y', 3000) FROM generate_series(-6000, -1) i;
INSERT INTO "Logs" SELECT i % 5, E'tab\t, back\\slash\nand line' FROM generate_series(1, 50) i;
ANALYZE;`

var wants = []string{
	`SELECT concat_ws('|', id, region, coalesce(big, 'NULL'), coalesce(price::text, 'NULL'), coalesce(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), 'NULL'), coalesce(encode(raw, 'hex'), 'NULL'), 'items') FROM items`,
	`SELECT concat_ws('|', coalesce(n::text, 'NULL'), coalesce(message, 'NULL')) FROM "Logs"`,
	`SELECT concat_ws('|', id, balance) FROM accounts`,
}

// write makes a random transaction. Transfers leave the sum of the balances as it is.
func write(r *rand.Rand) string {
	var sql strings.Builder
	sql.WriteString("BEGIN;")
	id := func() int { return r.IntN(12) }
	region := func() string { return []string{"'eu'", "'us'"}[r.IntN(2)] }
	for range 1 + r.IntN(6) {
		switch r.IntN(11) {
		case 0, 1:
			fmt.Fprintf(&sql, "INSERT INTO items VALUES (%d, %s, %d, repeat('%c', %d), %d.5, now(), '\\x%02x', repeat('o', 5000)) ON CONFLICT DO NOTHING;", id(), region(), id(), 'a'+rune(r.IntN(26)), r.IntN(6000), id(), r.IntN(256))
		case 2:
			fmt.Fprintf(&sql, "UPDATE items SET price = %d, unused = %d, at = NULL WHERE id = %d;", id(), id(), id())
		case 3:
			fmt.Fprintf(&sql, "UPDATE items SET big = repeat('%c', %d) WHERE id = %d;", 'a'+rune(r.IntN(26)), r.IntN(6000), id())
		case 4: // the key changes; the large value does not
			a, b := id(), id()
			fmt.Fprintf(&sql, "UPDATE items SET id = %d, raw = '\\x%02x' WHERE id = %d AND region = 'eu' AND NOT EXISTS (SELECT FROM items WHERE id = %d AND region = 'eu');", b, r.IntN(256), a, b)
		case 5:
			fmt.Fprintf(&sql, "DELETE FROM items WHERE id = %d OR id = -%d;", id(), 1+r.IntN(6000))
		case 6:
			fmt.Fprintf(&sql, `INSERT INTO "Logs" VALUES (%d, repeat('m', %d)); UPDATE "Logs" SET n = n + 1 WHERE n = %d;`, id(), r.IntN(3000), id())
		case 7:
			fmt.Fprintf(&sql, `DELETE FROM "Logs" WHERE n = %d;`, id())
		case 8:
			fmt.Fprintf(&sql, "UPDATE accounts SET balance = balance - 5 WHERE abs(id) = %d; UPDATE accounts SET balance = balance + 5 WHERE abs(id) = %d;", 1+r.IntN(3000), 1+r.IntN(3000))
		case 9:
			fmt.Fprintf(&sql, "UPDATE accounts SET id = -id, balance = balance - 5 WHERE abs(id) = %d; UPDATE accounts SET balance = balance + 5 WHERE abs(id) = %d;", 1+r.IntN(3000), 1+r.IntN(3000))
		case 10:
			if r.IntN(20) == 0 {
				fmt.Fprintf(&sql, "TRUNCATE items; INSERT INTO items VALUES (%d, %s, %d);", id(), region(), id())
			}
		}
	}
	sql.WriteString("COMMIT")
	return sql.String()
}

// TestThroughKills: whenever the reader is killed, it goes on behind its last checkpoint, sees whole transactions only, and
// has the tables as they are in the end.
func TestThroughKills(t *testing.T) {
	d := newDatabase(t, itemsDDL)
	tables := []typed.Table{items, logs, accounts}
	r := rand.New(rand.NewPCG(7, 7))
	saved, state := newModel(tables...), dataflow.State{}
	kills, boundaries, unseen := 0, 0, 0
	writer := d.writer(r.Uint64())
	for done := false; !done; {
		s := d.source(tables...)
		if err := s.Open(context.Background(), maps.Clone(state)); err != nil {
			t.Fatal(err)
		}
		m, agrees := saved.clone(), s.Agrees()
		var changed []dataflow.StateChange
		budget := 20 + r.IntN(150)
		if writer.done() {
			budget = 1 << 30
		}
		if !agrees && kills < 8 {
			budget = 2 + r.IntN(12) // in the middle of the first copy
		}
		for ; budget > 0 && !done; budget-- {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			msg, err := s.Read(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if msg.Kind == dataflow.KindBatch {
				if err := m.apply(msg.Table, msg.Batch); err != nil {
					t.Fatal(err)
				}
			}
			if msg.Kind == dataflow.KindEmptied {
				m.empty(msg.Table, msg.Emptied)
			}
			agrees = agrees || msg.Consistent
			changed = append(changed, msg.State...)
			if !msg.Boundary {
				continue
			}
			if !agrees {
				unseen++
			}
			if boundaries++; kills > 4 && boundaries > 20 {
				writer.end()
			}
			sum := 0
			for _, a := range m.rows[2] {
				var n int
				fmt.Sscan(a[1], &n)
				sum += n
			}
			if agrees && (sum != 0 || len(m.rows[2]) != 3000) {
				t.Fatalf("a boundary inside of a transaction or of the copy: %d accounts sum to %d", len(m.rows[2]), sum)
			}
			if r.IntN(3) == 0 || writer.done() {
				for _, c := range changed {
					if state[c.Key] = c.Value; c.Value == nil {
						delete(state, c.Key)
					}
				}
				saved = m.clone()
				s.Confirm(changed)
				changed = nil
				done = writer.done() && d.equal(saved)
			}
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		kills++
	}
	if err := writer.wait(); err != nil {
		t.Fatal(err)
	}
	for i, sql := range wants {
		want := d.texts(sql)
		slices.Sort(want)
		if got := saved.dump(i); !slices.Equal(got, want) {
			t.Errorf("table %s has %d rows, want %d", tables[i], len(got), len(want))
		}
	}
	t.Logf("%d kills, %d boundaries of which %d could not be seen", kills, boundaries, unseen)
	if kills < 4 || boundaries < 20 || unseen < 10 {
		t.Errorf("%d kills and %d boundaries, %d of them not to be seen, test little", kills, boundaries, unseen)
	}
}

func (d *database) equal(m *model) bool {
	for i, sql := range wants {
		want := d.texts(sql)
		slices.Sort(want)
		if !slices.Equal(m.dump(i), want) {
			return false
		}
	}
	return true
}

type writer struct {
	once  sync.Once
	stop  chan struct{}
	ended chan struct{}
	err   error
}

func (w *writer) end() { w.once.Do(func() { close(w.stop) }) }

func (w *writer) done() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}
func (w *writer) wait() error { <-w.ended; return w.err }

// writer makes transactions beside the reader until it is ended.
func (d *database) writer(seed uint64) *writer {
	conn, err := pgx.Connect(context.Background(), d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	w := &writer{stop: make(chan struct{}), ended: make(chan struct{})}
	d.t.Cleanup(func() { w.end(); <-w.ended })
	go func() {
		defer close(w.ended)
		defer func() { _ = conn.Close(context.Background()) }()
		r := rand.New(rand.NewPCG(seed, 1))
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			if _, err := conn.PgConn().Exec(context.Background(), write(r)).ReadAll(); err != nil {
				w.err = err
				return
			}
		}
	}()
	return w
}

// until reads until the condition is true at a boundary behind the first copy, or an error.
func until(t *testing.T, s *typed.Source, m *model, ok func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		msg, err := s.Read(ctx)
		if err != nil {
			return err
		}
		switch msg.Kind {
		case dataflow.KindBatch:
			if err := m.apply(msg.Table, msg.Batch); err != nil {
				t.Fatal(err)
			}
		case dataflow.KindEmptied:
			m.empty(msg.Table, msg.Emptied)
		}
		m.agrees = m.agrees || msg.Consistent
		if msg.Boundary && m.agrees && ok() {
			return nil
		}
	}
}

// TestTypes: values of every type that has one in the engine, through copy and stream alike.
func TestTypes(t *testing.T) {
	d := newDatabase(t, `CREATE DOMAIN cents AS int CHECK (VALUE >= 0); CREATE TYPE mood AS ENUM ('good', 'bad');
		CREATE TABLE types (id int PRIMARY KEY, i2 int2, i8 int8, f4 float4, f8 float8, num numeric, dec numeric(12, 3), flag bool, d date, t time, ts timestamp(3), tz timestamptz,
			u uuid, j jsonb, vc varchar(5), ch char(4), dom cents, en mood, arr int[], iv interval, oid_ oid)`)
	insert := func(id int) {
		d.exec(fmt.Sprintf(`INSERT INTO types VALUES (%d, -3, 9223372036854775807, 1.1, '-Infinity', 123456789012345678901234567890.5, 1.5, true, '0044-03-15', '23:59:59.5', '2024-02-29 12:00:00.123', '2024-02-29 12:00:00.123456+02',
			'00112233-4455-6677-8899-aabbccddeeff', '{"a": [1, null]}', 'äöüßx', 'ab', 7, 'bad', '{1,2}', '1 day', 4294967295); INSERT INTO types (id) VALUES (%d)`, id, id+1))
	}
	insert(1)
	kind := func(k row.Kind, p ...int) row.Type {
		typ := row.Type{Kind: k}
		if len(p) > 0 {
			typ.Precision = p[0]
		}
		if len(p) > 1 {
			typ.Scale = p[1]
		}
		return typ
	}
	table := typed.Table{Schema: "public", Name: "types", Key: []int{0}, Columns: row.Schema{{Name: "id", Type: kind(row.BigInt)}, {Name: "i2", Type: kind(row.Int)}, {Name: "i8", Type: kind(row.BigInt)},
		{Name: "f4", Type: kind(row.Float)}, {Name: "f8", Type: kind(row.Double)}, {Name: "num", Type: kind(row.Numeric)}, {Name: "dec", Type: kind(row.Decimal, 14, 4)},
		{Name: "flag", Type: kind(row.Boolean)}, {Name: "d", Type: kind(row.Date)}, {Name: "t", Type: kind(row.Time, 6)}, {Name: "ts", Type: kind(row.Timestamp, 3)}, {Name: "tz", Type: kind(row.TimestampLTZ, 6)},
		{Name: "u", Type: kind(row.UUID)}, {Name: "j", Type: kind(row.JSON)}, {Name: "vc", Type: kind(row.String, 5)}, {Name: "ch", Type: str}, {Name: "dom", Type: kind(row.Int)}, {Name: "en", Type: str},
		{Name: "arr", Type: str}, {Name: "iv", Type: str}, {Name: "oid_", Type: kind(row.BigInt)}}}
	s, m := d.source(table), newModel(table)
	defer func() { _ = s.Close(context.Background()) }()
	if err := s.Open(context.Background(), dataflow.State{}); err != nil {
		t.Fatal(err)
	}
	if err := until(t, s, m, func() bool { return len(m.rows[0]) == 2 }); err != nil {
		t.Fatal(err)
	}
	insert(3)
	if err := until(t, s, m, func() bool { return len(m.rows[0]) == 4 }); err != nil {
		t.Fatal(err)
	}
	nulls := strings.Repeat("|NULL", len(table.Columns)-1)
	values := `|-3|9223372036854775807|1.1|-Infinity|123456789012345678901234567890.5|1.5000|TRUE|0044-03-15|23:59:59.500000|2024-02-29 12:00:00.123|2024-02-29 10:00:00.123456|00112233-4455-6677-8899-aabbccddeeff|{"a": [1, null]}|äöüßx|ab  |7|bad|{1,2}|1 day|4294967295`
	want := []string{"1" + values, "2" + nulls, "3" + values, "4" + nulls}
	if got := m.dump(0); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestRefusals: what a declaration gets wrong is told before anything is read, with what would be right.
func TestRefusals(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, n numeric(10, 2), txt text, name varchar(20), g int GENERATED ALWAYS AS (id) STORED);
		CREATE TABLE b (id int, x int); CREATE VIEW v AS SELECT * FROM a;
		CREATE TABLE f (id int, x int UNIQUE); ALTER TABLE f REPLICA IDENTITY FULL`)
	id := row.Field{Name: "id", Type: bigint}
	for name, c := range map[string]struct {
		table typed.Table
		code  errs.Code
		want  string
	}{
		"no table":       {typed.Table{Name: "aa", Columns: row.Schema{id}}, errs.SourcePreflight, "public.a"},
		"view":           {typed.Table{Name: "v", Columns: row.Schema{id}}, errs.TableUnsupported, "views"},
		"no column":      {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "txxt", Type: str}}, Key: []int{0}}, errs.SQLUnknownName, "txt"},
		"other type":     {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "n", Type: bigint}}, Key: []int{0}}, errs.SQLTypeMismatch, "DECIMAL(10, 2)"},
		"narrow decimal": {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "n", Type: row.Type{Kind: row.Decimal, Precision: 10, Scale: 1}}}, Key: []int{0}}, errs.SQLTypeMismatch, "DECIMAL(10, 2)"},
		"short text":     {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "name", Type: row.Type{Kind: row.String, Precision: 10}}}, Key: []int{0}}, errs.SQLTypeMismatch, "STRING"},
		"generated":      {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "g", Type: bigint}}, Key: []int{0}}, errs.SQLTypeMismatch, "computed"},
		"maybe NULL":     {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "txt", Type: str.Required()}}, Key: []int{0}}, errs.SQLTypeMismatch, "SET NOT NULL"},
		"other key":      {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "txt", Type: str}}, Key: []int{1}}, errs.SourcePreflight, "REPLICA IDENTITY FULL"},
		"no key":         {typed.Table{Name: "b", Columns: row.Schema{id}}, errs.SourcePreflight, "REPLICA IDENTITY FULL"},
		"no unique key":  {typed.Table{Name: "f", Columns: row.Schema{id}, Key: []int{0}}, errs.SourcePreflight, "unique"},
		"metadata":       {typed.Table{Name: "a", Columns: row.Schema{id, {Name: "m", Type: str}}, Key: []int{0}, Metadata: map[int]string{1: "offset"}}, errs.SQLUnknownName, "table_name"},
	} {
		t.Run(name, func(t *testing.T) {
			c.table.Schema = "public"
			s := d.source(c.table)
			defer func() { _ = s.Close(context.Background()) }()
			err := s.Open(context.Background(), dataflow.State{})
			if e, ok := errs.As(err); !ok || e.Code != c.code || !strings.Contains(e.Error()+" "+e.Hint, c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if slots := d.texts("SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()"); len(slots) > 0 {
		t.Errorf("slots were made: %v", slots)
	}
}

// TestWhatStops: changes that would make results wrong end the source with their name; others pass.
func TestWhatStops(t *testing.T) {
	for name, c := range map[string]struct{ sql, want string }{
		"unused column":         {"ALTER TABLE accounts ADD extra text DEFAULT 'x'; ALTER TABLE accounts RENAME extra TO more; ALTER TABLE accounts DROP more; UPDATE accounts SET balance = 7", ""},
		"truncate":              {"TRUNCATE accounts; INSERT INTO accounts VALUES (1, 7)", ""},
		"truncate, rolled back": {"BEGIN; TRUNCATE accounts; ROLLBACK; UPDATE accounts SET balance = 7", ""},
		"wider types":           {"ALTER TABLE accounts ALTER id TYPE bigint, ALTER balance TYPE bigint, ALTER name TYPE varchar(9), ALTER price TYPE numeric(12, 3); UPDATE accounts SET balance = 7, name = 'of nine..', price = 1.25", ""},
		"more digits":           {"ALTER TABLE accounts ALTER price TYPE numeric(30, 20); UPDATE accounts SET price = 7", "price"},
		"fewer digits":          {"ALTER TABLE accounts ALTER price TYPE numeric(8, 1); UPDATE accounts SET price = 7", "price"},
		"shorter text":          {"ALTER TABLE accounts ALTER name TYPE varchar(2); UPDATE accounts SET name = 'b'", "name"},
		"type":                  {"ALTER TABLE accounts ALTER balance TYPE text; UPDATE accounts SET balance = 'seven'", "accounts"},
		"renamed column":        {"ALTER TABLE accounts RENAME balance TO saldo; UPDATE accounts SET saldo = 7", "accounts"},
		"dropped column":        {"ALTER TABLE accounts DROP balance; UPDATE accounts SET id = id + 100", "accounts"},
		"dropped table":         {"DROP TABLE accounts", "accounts"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t, "CREATE TABLE accounts (id int PRIMARY KEY, balance int, name varchar(5), price numeric(8, 2)); INSERT INTO accounts VALUES (1, 0, 'a', 1.5)")
			wide := accounts
			wide.Columns = append(slices.Clone(accounts.Columns), row.Field{Name: "name", Type: str}, row.Field{Name: "price", Type: row.Type{Kind: row.Decimal, Precision: 20, Scale: 4}})
			s, m := d.source(wide), newModel(wide)
			defer func() { _ = s.Close(context.Background()) }()
			if err := s.Open(context.Background(), dataflow.State{}); err != nil {
				t.Fatal(err)
			}
			if err := until(t, s, m, func() bool { return len(m.rows[0]) == 1 }); err != nil {
				t.Fatal(err)
			}
			d.exec(c.sql)
			err := until(t, s, m, func() bool { return len(m.rows[0]) == 1 && m.rows[0]["1"] != nil && m.rows[0]["1"][1] == "7" })
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if e, ok := errs.As(err); !ok || e.Code != errs.SourceSchemaChange || !strings.Contains(err.Error(), c.want) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestTruncateWithoutKey: nobody knows the rows that a TRUNCATE takes away from a table without a key.
func TestTruncateWithoutKey(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE "Logs" (n int, message text); ALTER TABLE "Logs" REPLICA IDENTITY FULL; INSERT INTO "Logs" VALUES (1, 'a')`)
	s, m := d.source(logs), newModel(logs)
	defer func() { _ = s.Close(context.Background()) }()
	if err := s.Open(context.Background(), dataflow.State{}); err != nil {
		t.Fatal(err)
	}
	if err := until(t, s, m, func() bool { return len(m.counts[0]) == 1 }); err != nil {
		t.Fatal(err)
	}
	d.exec(`TRUNCATE "Logs"`)
	err := until(t, s, m, func() bool { return len(m.counts[0]) == 0 })
	if e, ok := errs.As(err); !ok || e.Code != errs.SourceSchemaChange || !strings.Contains(err.Error(), "TRUNCATE") {
		t.Errorf("got %v", err)
	}
}

// TestCommitTime: op_ts is the time of the row's transaction, and 1970 of a row of the first copy.
func TestCommitTime(t *testing.T) {
	d := newDatabase(t, "CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts VALUES (1, 0)")
	timed := accounts
	timed.Columns = append(slices.Clone(accounts.Columns), row.Field{Name: "at", Type: row.Type{Kind: row.TimestampLTZ, Precision: 3}})
	timed.Metadata = map[int]string{2: "op_ts"}
	s, m := d.source(timed), newModel(timed)
	defer func() { _ = s.Close(context.Background()) }()
	if err := s.Open(context.Background(), dataflow.State{}); err != nil {
		t.Fatal(err)
	}
	if err := until(t, s, m, func() bool { return len(m.rows[0]) == 1 }); err != nil {
		t.Fatal(err)
	}
	if at := m.rows[0]["1"][2]; at != "1970-01-01 00:00:00.000" {
		t.Errorf("a copied row has %s", at)
	}
	before := d.texts("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")[0]
	d.exec("INSERT INTO accounts VALUES (2, 0)")
	after := d.texts("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")[0]
	d.exec("INSERT INTO accounts SELECT i, 0 FROM generate_series(3, 20000) i") // more than one message
	if err := until(t, s, m, func() bool { return len(m.rows[0]) == 20000 }); err != nil {
		t.Fatal(err)
	}
	if at := m.rows[0]["2"][2]; at < before || at > after {
		t.Errorf("a row of a transaction between %s and %s has %s", before, after, at)
	}
	for id, r := range m.rows[0] {
		if r[2] != m.rows[0]["3"][2] && id != "1" && id != "2" {
			t.Fatalf("rows 3 and %s of one transaction have %s and %s", id, m.rows[0]["3"][2], r[2])
		}
	}
}
