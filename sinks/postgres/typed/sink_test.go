package typed_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/sinks/postgres/typed"
	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

type database struct {
	t    testing.TB
	url  string
	cfg  *pg.Config
	conn *pgx.Conn
	env  *env.Env
	gen  dataflow.Generation
}

func newDatabase(t testing.TB, ddl string) *database {
	server := testenv.Shared(t, 15, testenv.FsyncOff())
	d := &database{t: t, url: server.CreateDatabase(t, "sink"), env: env.Real(slog.New(slog.DiscardHandler))}
	d.env.Fail = failpoint.NewSet()
	var err error
	if d.cfg, err = pg.ParseURL(d.url); err != nil {
		t.Fatal(err)
	}
	if d.conn, err = pgx.Connect(context.Background(), d.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.conn.Close(context.Background()) })
	d.exec(ddl)
	return d
}

func (d *database) exec(sql string) {
	d.t.Helper()
	if _, err := d.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		d.t.Fatalf("%.200s: %v", sql, err)
	}
}

// texts are the rows of a query of one text column, sorted.
func (d *database) texts(sql string) []string {
	d.t.Helper()
	rows, err := d.conn.Query(context.Background(), sql)
	if err != nil {
		d.t.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	slices.Sort(texts)
	return texts
}

func (d *database) sink(tables ...typed.Table) *typed.Sink {
	return typed.New(d.env, typed.Options{Config: d.cfg, Pipeline: "p1", Sink: "out", Tables: tables})
}

// open opens a sink under the next generation.
func (d *database) open(tables ...typed.Table) (*typed.Sink, dataflow.Checkpoint) {
	d.t.Helper()
	s := d.sink(tables...)
	d.gen++
	c, err := s.Open(context.Background(), d.gen, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s, c
}

// change is a row with a weight: values as their text, nil is NULL.
type change struct {
	table  int
	weight int64
	values []any
}

func put(table int, values ...any) change  { return change{table, 1, values} }
func take(table int, values ...any) change { return change{table, -1, values} }

// list gives changes in batches of the size.
type list struct {
	tables  []typed.Table
	changes []change
	size    int
	out     *row.Builder
}

func (l *list) Next() (int, *row.Batch, error) {
	if len(l.changes) == 0 {
		return 0, nil, io.EOF
	}
	table := l.changes[0].table
	l.out = row.NewBuilder(l.tables[table].Columns.Types())
	for l.out.Len < max(l.size, 1) && len(l.changes) > 0 && l.changes[0].table == table {
		c := l.changes[0]
		l.changes = l.changes[1:]
		for i, f := range l.tables[table].Columns {
			appendValue(l.out.Cols[i], f.Type, c.values[i])
		}
		l.out.EndRow(c.weight)
	}
	return table, l.out.Seal(), nil
}

func appendValue(v *row.Vector, t row.Type, value any) {
	switch x := value.(type) {
	case nil:
		v.AppendNull(t.Layout())
	case []byte:
		v.AppendBytes(x)
	case int:
		switch t.Kind {
		case row.IntervalMonths, row.IntervalTime:
			v.Int64 = append(v.Int64, int64(x))
		default:
			appendValue(v, t, fmt.Sprint(x))
		}
	case []any:
		var elems row.Vector
		for _, e := range x {
			appendValue(&elems, *t.Elem, e)
		}
		elems.Seal(len(x))
		v.AppendBytes(row.AppendList(nil, *t.Elem, &elems, nil, len(x)))
	case string:
		if err := row.ParseText(v, t, []byte(x), nil); err != nil {
			panic(fmt.Sprintf("%s: %v", x, err))
		}
	}
}

func publish(s *typed.Sink, c dataflow.Checkpoint, tables []typed.Table, size int, changes ...change) error {
	return s.Publish(context.Background(), c, &list{tables: tables, changes: changes, size: size})
}

var (
	bigint = row.Type{Kind: row.BigInt}
	str    = row.Type{Kind: row.String}
	ctx    = context.Background()
)

func accounts() typed.Table {
	return typed.Table{Schema: "public", Name: "accounts", Key: []int{0}, Columns: row.Schema{{Name: "id", Type: bigint.Required()}, {Name: "owner", Type: str}, {Name: "balance", Type: bigint}}}
}

const accountsDDL = `CREATE TABLE accounts (id int PRIMARY KEY, owner varchar(5), balance int);`
const accountsText = `SELECT concat_ws('|', id, coalesce(owner, '-'), coalesce(balance::text, '-')) FROM accounts`

func wantCode(t *testing.T, err error, code errs.Code, parts ...string) {
	t.Helper()
	e, ok := errs.As(err)
	if !ok || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	for _, p := range parts {
		if !strings.Contains(e.Render(), p) {
			t.Errorf("%s\ndoes not say %q", e.Render(), p)
		}
	}
}

// TestUpserts: rows come, change and go, whatever was there before.
func TestUpserts(t *testing.T) {
	d := newDatabase(t, accountsDDL+`INSERT INTO accounts VALUES (1, 'old', 5), (9, 'other', 1); CREATE TABLE logs (n bigint, line text);`)
	tables := []typed.Table{accounts(), {Schema: "public", Name: "logs", Columns: row.Schema{{Name: "n", Type: bigint}, {Name: "line", Type: str}}}}
	for _, size := range []int{1, 2, 100} {
		d.exec("TRUNCATE accounts, logs; INSERT INTO accounts VALUES (1, 'old', 5), (9, 'other', 1)")
		s, c := d.open(tables...)
		if err := publish(s, c+3, tables, size, put(0, 1, "ann", 10), put(0, 2, nil, nil), put(0, 3, "cid", 1), put(0, 3, "cyd", 2), put(1, 1, "a"), change{1, 3, []any{2, nil}}); err != nil {
			t.Fatal(err)
		}
		if got := d.texts(accountsText); !slices.Equal(got, []string{"1|ann|10", "2|-|-", "3|cyd|2", "9|other|1"}) {
			t.Errorf("batches of %d: %q", size, got)
		}
		if got := d.texts(`SELECT concat_ws('|', n, coalesce(line, '-')) FROM logs`); !slices.Equal(got, []string{"1|a", "2|-", "2|-", "2|-"}) {
			t.Errorf("batches of %d: %q", size, got)
		}
		if err := publish(s, c+4, tables, size, take(0, 1, "ann", 10), put(0, 1, "ann", -10), take(0, 2, nil, nil), take(0, 3, "cyd", 2), put(0, 4, "dan", 0)); err != nil {
			t.Fatal(err)
		}
		if got := d.texts(accountsText); !slices.Equal(got, []string{"1|ann|-10", "4|dan|0", "9|other|1"}) {
			t.Errorf("batches of %d: %q", size, got)
		}
		if err := s.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if _, again := d.open(tables...); again != c+4 {
			t.Errorf("the ledger is at %d, want %d", again, c+4)
		}
	}
}

// TestFence: who was there before can do nothing any more, and no checkpoint is published twice.
func TestFence(t *testing.T) {
	d := newDatabase(t, accountsDDL)
	tables := []typed.Table{accounts()}
	old, _ := d.open(tables...)
	if err := publish(old, 5, tables, 1, put(0, 1, "ann", 1)); err != nil {
		t.Fatal(err)
	}
	s, c := d.open(tables...)
	if c != 5 {
		t.Errorf("opened at %d", c)
	}
	wantCode(t, publish(old, 6, tables, 1, put(0, 1, "ann", 2)), errs.TargetUnreachable)
	wantCode(t, publish(s, 5, tables, 1, put(0, 1, "ann", 3)), errs.Fenced)
	_ = s.Close(ctx)
	stale := d.sink(tables...)
	_, err := stale.Open(ctx, d.gen-1, 0)
	wantCode(t, err, errs.Fenced)
	_ = stale.Close(ctx)
	// Another pipeline has a ledger row of its own.
	other := typed.New(d.env, typed.Options{Config: d.cfg, Pipeline: "p2", Sink: "out", Tables: tables})
	if c, err := other.Open(ctx, 1, 0); err != nil || c != 0 {
		t.Errorf("another pipeline begins at %d, %v", c, err)
	}
	_ = other.Close(ctx)
	if got := d.texts(accountsText); !slices.Equal(got, []string{"1|ann|1"}) {
		t.Errorf("%q", got)
	}
}

// TestLostReply: whatever dies around a commit, the next start knows what is there.
func TestLostReply(t *testing.T) {
	for _, p := range typed.FailPoints() {
		t.Run(string(p), func(t *testing.T) {
			d := newDatabase(t, accountsDDL)
			tables := []typed.Table{accounts()}
			s, _ := d.open(tables...)
			if err := publish(s, 1, tables, 1, put(0, 1, "ann", 1)); err != nil {
				t.Fatal(err)
			}
			d.env.Fail.Arm(p, func() error { return io.ErrUnexpectedEOF })
			wantCode(t, publish(s, 2, tables, 1, take(0, 1, "ann", 1), put(0, 1, "ann", 2)), errs.TargetUnreachable)
			_ = s.Close(ctx)
			d.env.Fail.Arm(p, func() error { return nil })
			s, c := d.open(tables...)
			if want := map[bool]dataflow.Checkpoint{true: 2, false: 1}[p == typed.FailAfterCommit]; c != want {
				t.Fatalf("opened at %d, want %d", c, want)
			}
			if c == 1 {
				if err := publish(s, 2, tables, 1, take(0, 1, "ann", 1), put(0, 1, "ann", 2)); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.texts(accountsText); !slices.Equal(got, []string{"1|ann|2"}) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestBlockedPredecessor: a predecessor that waits for a lock is ended by who comes next.
func TestBlockedPredecessor(t *testing.T) {
	d := newDatabase(t, accountsDDL)
	tables := []typed.Table{accounts()}
	old, _ := d.open(tables...)
	if err := publish(old, 1, tables, 1, put(0, 1, "ann", 1)); err != nil {
		t.Fatal(err)
	}
	d.exec("BEGIN; SELECT FROM accounts FOR UPDATE")
	done := make(chan error, 1)
	go func() { done <- publish(old, 2, tables, 1, put(0, 1, "ann", 2)) }()
	other, err := pgx.Connect(ctx, d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(ctx) }()
	for waiting := false; !waiting; {
		if err := other.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'weir sink' AND wait_event_type = 'Lock' AND datname = current_database())`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Now()
	s, c := d.open(tables...)
	if c != 1 || time.Since(took) > 15*time.Second {
		t.Errorf("opened at %d after %s", c, time.Since(took))
	}
	wantCode(t, <-done, errs.TargetUnreachable)
	d.exec("COMMIT")
	if err := publish(s, 2, tables, 1, put(0, 1, "ann", 3)); err != nil {
		t.Fatal(err)
	}
	if got := d.texts(accountsText); !slices.Equal(got, []string{"1|ann|3"}) {
		t.Errorf("%q", got)
	}
}

// TestRandom: random changes with unique values that move between rows, and what the table holds afterwards is what they
// say, at every checkpoint and across reopening.
func TestRandom(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE seats (a int, b text, seat int, note numeric(8, 2), PRIMARY KEY (b, a), UNIQUE (seat))`)
	seats := typed.Table{Schema: "public", Name: "seats", Key: []int{0, 1}, Columns: row.Schema{{Name: "a", Type: row.Type{Kind: row.Int, NotNull: true}}, {Name: "b", Type: str.Required()},
		{Name: "seat", Type: bigint}, {Name: "note", Type: row.Type{Kind: row.Decimal, Precision: 8, Scale: 2}}}}
	tables := []typed.Table{seats}
	r := rand.New(rand.NewPCG(3, 4))
	type key struct {
		a int
		b string
	}
	type val struct {
		seat any
		note string
	}
	have := map[key]val{}
	s, c := d.open(tables...)
	for round := range 60 {
		next := maps.Clone(have)
		free := r.Perm(60)
		for range r.IntN(30) {
			k := key{r.IntN(6), string(rune('a' + r.IntN(6)))}
			if delete(next, k); r.IntN(4) > 0 {
				next[k] = val{nil, fmt.Sprintf("%d.%02d", r.IntN(99999)-50000, r.IntN(100))}
			}
		}
		for k, v := range next { // many of the seats move
			if v.seat == nil || r.IntN(2) == 0 {
				v.seat = nil
				if r.IntN(5) > 0 {
					v.seat = free[0]
					free = free[1:]
				}
				next[k] = v
			}
		}
		taken := map[any]bool{}
		for k, v := range next {
			if v.seat != nil && taken[v.seat] {
				v.seat = nil
				next[k] = v
			}
			taken[v.seat] = true
		}
		var changes []change
		keys := map[key]bool{}
		for k := range have {
			keys[k] = true
		}
		for k := range next {
			keys[k] = true
		}
		for k := range keys {
			was, a := have[k]
			is, b := next[k]
			if a && b && was == is {
				continue
			}
			if a {
				changes = append(changes, take(0, k.a, k.b, was.seat, was.note))
			}
			if b {
				changes = append(changes, put(0, k.a, k.b, is.seat, is.note))
			}
		}
		c += 1 + dataflow.Checkpoint(r.IntN(3))
		if err := publish(s, c, tables, 1+r.IntN(8), changes...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		have = next
		var want []string
		for k, v := range have {
			seat := "-"
			if v.seat != nil {
				seat = fmt.Sprint(v.seat)
			}
			want = append(want, fmt.Sprintf("%d|%s|%s|%s", k.a, k.b, seat, strings.Replace(v.note, "-0.00", "0.00", 1)))
		}
		slices.Sort(want)
		if got := d.texts(`SELECT concat_ws('|', a, b, coalesce(seat::text, '-'), note) FROM seats`); !slices.Equal(got, want) {
			t.Fatalf("round %d:\n%q\nwant\n%q", round, got, want)
		}
		if r.IntN(10) == 0 {
			_ = s.Close(ctx)
			var at dataflow.Checkpoint
			if s, at = d.open(tables...); at != c {
				t.Fatalf("opened at %d, want %d", at, c)
			}
		}
	}
}

// TestSeveralAsOne: checkpoints that are published as one change a key again and again, and the last word counts.
func TestSeveralAsOne(t *testing.T) {
	for _, unique := range []string{"", "UNIQUE"} {
		d := newDatabase(t, `CREATE TABLE accounts (id int PRIMARY KEY, owner text `+unique+`, balance int)`)
		tables := []typed.Table{accounts()}
		r := rand.New(rand.NewPCG(8, 9))
		have := map[int]string{}
		s, c := d.open(tables...)
		for round := range 40 {
			var all []change
			for range 1 + r.IntN(4) {
				owners, from := r.Perm(30), len(all)
				for _, id := range r.Perm(10)[:r.IntN(10)] {
					was, there := have[id]
					if there {
						all = append(all, take(0, id, was, 1))
						delete(have, id)
					}
					if r.IntN(3) > 0 {
						have[id] = ""
					}
				}
				taken := map[string]bool{}
				for _, o := range have {
					taken[o] = true
				}
				for id := range 10 { // each put follows its take, as in an outbox
					if o, ok := have[id]; !ok || o != "" {
						continue
					}
					for taken[fmt.Sprint(owners[0])] {
						owners = owners[1:]
					}
					o := fmt.Sprint(owners[0])
					owners = owners[1:]
					have[id] = o
					at := len(all)
					for i := len(all) - 1; i >= from; i-- {
						if all[i].values[0] == any(id) {
							at = i + 1
							break
						}
					}
					all = slices.Insert(all, at, put(0, id, o, 1))
				}
			}
			c++
			if err := publish(s, c, tables, 1+r.IntN(6), all...); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			var want []string
			for id, o := range have {
				want = append(want, fmt.Sprintf("%d|%s|1", id, o))
			}
			slices.Sort(want)
			if got := d.texts(accountsText); !slices.Equal(got, want) {
				t.Fatalf("round %d of %q:\n%q\nwant\n%q", round, unique, got, want)
			}
		}
	}
}
