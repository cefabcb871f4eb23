package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/pg"
)

// stormTime is how long tables change.
const stormTime = 8 * time.Second

// TestDDLStorm changes names and shapes of tables while they are copied for the first time and weir dies now and then.
// At the end every table gets a row, since the log tells of a change with the next row, and both sides must be equal,
// with all indexes and constraints but those of which weir said that the target goes without them.
func TestDDLStorm(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay the actions with -args -seed %d", seed)
	s := &storm{t: t, rng: rand.New(rand.NewPCG(seed, 2)), used: []string{"old", "aside"}}
	s.src, s.dst = pair(t, 15, 15)
	s.app, s.open, s.block = s.connect(s.src), s.connect(s.src), s.connect(s.dst)
	// Copies hold locks of their tables: what has to wait for them is given up, and something else is tried.
	s.mustRun(`SET lock_timeout = '300ms'`, `CREATE SCHEMA shop`)
	for range 4 + s.rng.IntN(5) {
		s.try(s.create(s.name(), s.schema(), []int{10, 500, 25000, 30000}[s.rng.IntN(4)]))
	}
	s.mustRun(`ANALYZE`)
	workers := 1 + s.rng.IntN(4)
	t.Logf("%d tables, %d workers", len(s.tables), workers)
	s.m = newMirror(t, s.src, s.dst, "public.*,shop.*", "--set", "snapshot.chunk.bytes=1MB", "--log-level", "info", "--set", "on.missing.row=error",
		"--set", fmt.Sprintf("snapshot.parallelism=%d", workers))
	s.m.start()
	kills := 1 + s.rng.IntN(3)
	var at []time.Duration
	for range kills {
		at = append(at, time.Duration(s.rng.Int64N(int64(stormTime))))
	}
	slices.Sort(at)
	begin, back, blocked := time.Now(), time.Time{}, time.Time{}
	for time.Since(begin) < stormTime {
		<-time.After(time.Duration(s.rng.IntN(250)) * time.Millisecond)
		if len(at) > 0 && time.Since(begin) > at[0] && back.IsZero() {
			t.Logf("%s kill", clock())
			s.m.kill()
			at, back = at[1:], time.Now().Add(time.Duration(s.rng.IntN(1500))*time.Millisecond)
		}
		if !back.IsZero() && time.Now().After(back) {
			t.Logf("%s start", clock())
			s.m.start()
			back = time.Time{}
		}
		// A table that is held at the target keeps the copy going for as long as that.
		switch {
		case !blocked.IsZero() && time.Now().After(blocked):
			s.release(s.block)
			blocked = time.Time{}
		case blocked.IsZero() && s.rng.IntN(3) == 0:
			if s.hold() {
				blocked = time.Now().Add(time.Duration(s.rng.IntN(2500)) * time.Millisecond)
			}
		}
		s.try(s.action())
	}
	s.release(s.block)
	s.release(s.open)
	if !back.IsZero() {
		s.m.start()
	}
	s.mustRun(`SET lock_timeout = 0`)
	for _, x := range s.tables {
		s.mustRun(x.insert(s, 1))
	}
	s.settle()
	if s.m.undecodable {
		t.Logf("nothing can be told: the source cannot decode its log\n%s", s.m.logTail(10))
		return
	}
	requireEqual(t, s.src, s.dst)
	requireConsistent(t, s.m)
	s.requireBuilt()
}

// storm is the source's application. What it knows of its tables is what the last transaction that was not refused left.
type storm struct {
	t           *testing.T
	rng         *rand.Rand
	src, dst    db
	m           *mirror
	app         *pgx.Conn
	open, block *pgx.Conn // transactions that stay open for a while
	opened      bool
	tables      []*stormTable
	used        []string // names that tables have had
	made        int      // for new names
}

type stormTable struct {
	schema, name string
	key          string
	columns      []stormColumn // besides the key
	next         int           // value of the key that no row has had
	joined       bool          // made while the mirror runs
}

type stormColumn struct {
	name string
	kind byte        // t text, i int, b bigint, u a unique int
	refs *stormTable // of a foreign key
}

func (x *stormTable) String() string { return pg.Qualified(x.schema, x.name) }

func (x *stormTable) clone() *stormTable {
	c := *x
	c.columns = slices.Clone(x.columns)
	return &c
}

// A change is a transaction and what is so when it was not refused.
type change struct {
	sql  string
	then func()
}

func clock() string { return time.Now().UTC().Format("15:04:05.000") }

func (s *storm) connect(d db) *pgx.Conn {
	conn, err := pgx.Connect(s.t.Context(), d.url)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (s *storm) mustRun(sql ...string) {
	s.t.Helper()
	for _, q := range sql {
		if _, err := s.app.PgConn().Exec(s.t.Context(), q).ReadAll(); err != nil {
			s.t.Fatalf("%s: %v", q, err)
		}
	}
}

// try runs a change as one transaction.
func (s *storm) try(c change) {
	if c.sql == "" {
		return
	}
	_, err := s.app.PgConn().Exec(s.t.Context(), c.sql).ReadAll()
	var refused *pgconn.PgError
	switch {
	case err == nil:
		s.t.Logf("%s %s", clock(), c.sql)
		if c.then != nil {
			c.then()
		}
	case errors.As(err, &refused) && slices.Contains([]string{"55P03", "40P01", "42P07", "42703", "42P01", "55000"}, refused.Code): // locked, names are not as they seemed, or the identity's index is gone
	default:
		s.t.Fatalf("%s: %v", c.sql, err)
	}
}

func (s *storm) release(conn *pgx.Conn) {
	if _, err := conn.PgConn().Exec(s.t.Context(), `COMMIT`).ReadAll(); err != nil {
		s.t.Fatal(err)
	}
}

// hold locks a table at the target, as a reader there may.
func (s *storm) hold() bool {
	x := s.tables[s.rng.IntN(len(s.tables))]
	_, err := s.block.PgConn().Exec(s.t.Context(), "BEGIN; SET LOCAL lock_timeout = '100ms'; LOCK TABLE "+x.String()).ReadAll()
	if err != nil {
		s.release(s.block)
		return false
	}
	s.t.Logf("%s the target's %s is locked", clock(), x)
	return true
}

func (s *storm) fresh(prefix string) string {
	s.made++
	return fmt.Sprintf("%s%d", prefix, s.made)
}

func (s *storm) schema() string { return []string{"public", "public", "shop"}[s.rng.IntN(3)] }

// name is one that no table has now, now and then one that some table had.
func (s *storm) name() string {
	if s.rng.IntN(3) == 0 {
		name := s.used[s.rng.IntN(len(s.used))]
		if !slices.ContainsFunc(s.tables, func(x *stormTable) bool { return x.name == name }) {
			return name
		}
	}
	name := s.fresh("t")
	s.used = append(s.used, name)
	return name
}

func (s *storm) create(name, schema string, rows int) change {
	x := &stormTable{schema: schema, name: name, key: s.fresh("k"), next: 1, joined: s.m != nil}
	def := []string{x.key + " int PRIMARY KEY"}
	var after []string
	for range 1 + s.rng.IntN(4) {
		c := stormColumn{name: s.fresh("c"), kind: "tibu"[s.rng.IntN(4)]}
		if len(s.tables) > 0 && c.kind == 'i' && s.rng.IntN(2) == 0 {
			c.refs = s.tables[s.rng.IntN(len(s.tables))]
		}
		switch {
		case c.kind == 'u':
			def = append(def, c.name+" int NOT NULL UNIQUE")
		case c.refs != nil:
			def = append(def, c.name+" bigint REFERENCES "+c.refs.String()+" ON DELETE CASCADE ON UPDATE CASCADE")
		default:
			def = append(def, c.name+" "+map[byte]string{'t': "text", 'i': "int", 'b': "bigint"}[c.kind])
		}
		if c.kind != 'u' && s.rng.IntN(2) == 0 {
			after = append(after, fmt.Sprintf("CREATE INDEX ON %s(%s)", x, c.name))
		}
		x.columns = append(x.columns, c)
	}
	sql := append([]string{fmt.Sprintf("CREATE TABLE %s(%s)", x, strings.Join(def, ", "))}, after...)
	if rows > 0 {
		sql = append(sql, x.insert(s, rows))
	}
	x.next += rows
	return change{strings.Join(sql, "; "), func() { s.tables = append(s.tables, x) }}
}

// insert adds rows with keys that were never used; the caller moves next on when they are there. Twice in one transaction
// would be the same rows.
func (x *stormTable) insert(s *storm, n int) string {
	cols, vals := []string{x.key}, []string{"i"}
	for _, c := range x.columns {
		v := fmt.Sprintf("i + %d", s.rng.IntN(1000))
		switch {
		case c.refs != nil:
			if c.refs == x || n > 1 {
				v = "NULL"
			} else {
				v = fmt.Sprintf("(SELECT max(%s) FROM %s)", c.refs.key, c.refs)
			}
		case c.kind == 'u':
			v = "i"
		case c.kind == 't':
			v = fmt.Sprintf("repeat(md5((i + %d)::text), %d)", s.rng.IntN(1000), 1+s.rng.IntN(10))
		}
		cols, vals = append(cols, c.name), append(vals, v)
	}
	return fmt.Sprintf("INSERT INTO %s(%s) SELECT %s FROM generate_series(%d, %d) i", x, strings.Join(cols, ", "), strings.Join(vals, ", "), x.next, x.next+n-1)
}

// write is statements over the rows of a table.
func (x *stormTable) write(s *storm) string {
	var sql []string
	if s.rng.IntN(2) == 0 {
		n := []int{1, 1, 5, 300}[s.rng.IntN(4)]
		sql = append(sql, x.insert(s, n))
		x.next += n
	}
	some := fmt.Sprintf("%s %% %d = %d", x.key, 50+s.rng.IntN(50), s.rng.IntN(50))
	for _, c := range x.columns {
		if c.refs != nil || s.rng.IntN(2) == 0 {
			continue
		}
		if c.kind == 'u' {
			sql = append(sql, fmt.Sprintf("UPDATE %s SET %s = -%[2]s WHERE %s", x, c.name, some)) // no two rows have one of either sign
			continue
		}
		v := fmt.Sprint(s.rng.IntN(1000))
		if c.kind == 't' {
			v = "'changed " + v + "'"
		}
		sql = append(sql, fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s", x, c.name, v, some))
	}
	switch s.rng.IntN(4) {
	case 0:
		sql = append(sql, fmt.Sprintf("DELETE FROM %s WHERE %s %% %d = %d", x, x.key, 50+s.rng.IntN(50), s.rng.IntN(50)))
	case 1:
		sql = append(sql, fmt.Sprintf("UPDATE %s SET %s = %d WHERE %s = (SELECT min(%s) FROM %s)", x, x.key, x.next, x.key, x.key, x))
		x.next++
	}
	return strings.Join(sql, "; ")
}

// action is the next transaction. Rows are written before and behind what changes shapes, or in other transactions, or
// not at all.
func (s *storm) action() change {
	rng := s.rng
	if rng.IntN(12) == 0 {
		s.toggle()
		return change{}
	}
	x := s.tables[rng.IntN(len(s.tables))]
	now := x.clone() // what becomes of x
	replace := func() { *x = *now }
	var sql []string
	if rng.IntN(3) == 0 {
		sql = append(sql, now.write(s))
	}
	rename := func(t *stormTable, name string) {
		sql = append(sql, fmt.Sprintf("ALTER TABLE %s RENAME TO %s", t, name))
		t.name = name
	}
	column := func() *stormColumn {
		if len(now.columns) == 0 {
			return nil
		}
		return &now.columns[rng.IntN(len(now.columns))]
	}
	then := replace
	switch rng.IntN(16) {
	case 0, 1:
		rename(now, s.name())
	case 2, 3: // two swap their names, three go round
		group := []*stormTable{now}
		of := []*stormTable{x}
		for _, i := range rng.Perm(len(s.tables))[:min(len(s.tables), 2+rng.IntN(2))] {
			if y := s.tables[i]; y != x && y.schema == x.schema {
				group, of = append(group, y.clone()), append(of, y)
			}
		}
		first := now.name
		for i := range group {
			old := group[i].name
			if i == 0 {
				rename(group[i], "passing")
			} else {
				rename(group[i], first)
				first = old
			}
		}
		rename(now, first)
		for _, y := range group {
			if rng.IntN(2) == 0 {
				sql = append(sql, y.write(s))
			}
		}
		then = func() {
			for i := range of {
				*of[i] = *group[i]
			}
		}
	case 4: // another under its name
		sql = append(sql, fmt.Sprintf("DROP TABLE %s CASCADE", now))
		made := s.create(x.name, x.schema, []int{0, 3, 1000}[rng.IntN(3)])
		// It does not point to what it takes the place of.
		if strings.Contains(made.sql, "REFERENCES "+x.String()+" ") {
			return change{}
		}
		sql = append(sql, made.sql)
		then = func() { s.forget(x); made.then() }
	case 5: // filled beside it and put into its place
		made := s.create(s.fresh("new"), x.schema, []int{3, 1000, 21000}[rng.IntN(3)])
		if strings.Contains(made.sql, "REFERENCES "+x.String()+" ") {
			return change{}
		}
		s.try(made)
		y := s.tables[len(s.tables)-1]
		if y == x || !strings.HasPrefix(y.name, "new") || y.schema != x.schema {
			return change{}
		}
		put := y.clone()
		old := now.name
		drop := rng.IntN(2) == 0
		if drop {
			sql = append(sql, fmt.Sprintf("DROP TABLE %s CASCADE", now))
		} else {
			rename(now, s.name())
		}
		rename(put, old)
		then = func() {
			*y = *put
			if drop {
				s.forget(x)
			} else {
				replace()
			}
		}
	case 6:
		if len(s.tables) < 12 {
			return s.create(s.name(), s.schema(), []int{0, 3, 1000, 21000}[rng.IntN(4)])
		}
		if len(s.tables) > 3 {
			sql = append(sql, fmt.Sprintf("DROP TABLE %s CASCADE", now))
			then = func() { s.forget(x) }
		}
	case 7, 8:
		name := s.fresh("c")
		c := column()
		if c == nil || rng.IntN(3) == 0 {
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s RENAME %s TO %s", now, now.key, name))
			now.key = name
		} else {
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s RENAME %s TO %s", now, c.name, name))
			c.name = name
		}
	case 9:
		c := stormColumn{name: s.fresh("c"), kind: "tib"[rng.IntN(3)]}
		sql = append(sql, fmt.Sprintf("ALTER TABLE %s ADD %s %s", now, c.name, map[byte][]string{'t': {"text", "text DEFAULT 'x'"}, 'i': {"int", "int NOT NULL DEFAULT 5"},
			'b': {"bigint", "bigint DEFAULT (random() * 1000)::int"}}[c.kind][rng.IntN(2)]))
		now.columns = append(now.columns, c)
	case 10:
		if len(now.columns) > 0 {
			i := rng.IntN(len(now.columns))
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s DROP %s", now, now.columns[i].name))
			now.columns = slices.Delete(now.columns, i, i+1)
		}
	case 11:
		if c := column(); c != nil && (c.kind == 'i' || c.kind == 'u') && c.refs == nil {
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s ALTER %s TYPE bigint", now, c.name))
			if c.kind == 'i' {
				c.kind = 'b'
			}
		} else if rng.IntN(2) == 0 {
			sql = append(sql, fmt.Sprintf("ALTER TABLE %s ALTER %s TYPE bigint", now, now.key))
		}
	case 12:
		sql = append(sql, fmt.Sprintf("TRUNCATE %s CASCADE", now))
	case 13:
		to := map[string]string{"public": "shop", "shop": "public"}[now.schema]
		sql = append(sql, fmt.Sprintf("ALTER TABLE %s SET SCHEMA %s", now, to))
		now.schema = to
		if slices.ContainsFunc(s.tables, func(y *stormTable) bool { return y != x && y.schema == to && y.name == now.name }) {
			return change{}
		}
	case 14: // rows are named by other columns from now on
		to := []string{"'FULL'", "'DEFAULT'", "(SELECT 'USING INDEX ' || quote_ident(c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE indrelid = t AND indisunique AND NOT indisprimary LIMIT 1)"}[rng.IntN(3)]
		sql = append(sql, fmt.Sprintf("DO $$ DECLARE t regclass := %s; BEGIN EXECUTE format('ALTER TABLE %%s REPLICA IDENTITY %%s', t, coalesce(%s, 'DEFAULT')); END $$", pg.Literal(now.String()), to))
		if rng.IntN(2) == 0 {
			sql = append(sql, now.write(s))
		}
	default:
		sql = append(sql, now.write(s))
	}
	if rng.IntN(3) == 0 && !strings.Contains(strings.Join(sql, ";"), "DROP TABLE") {
		sql = append(sql, now.write(s))
	}
	sql = slices.DeleteFunc(sql, func(q string) bool { return q == "" })
	return change{strings.Join(sql, "; "), then}
}

// forget is for a table that was dropped, with the foreign keys that pointed to it.
func (s *storm) forget(x *stormTable) {
	s.tables = slices.DeleteFunc(s.tables, func(y *stormTable) bool { return y == x })
	for _, y := range s.tables {
		for i := range y.columns {
			if y.columns[i].refs == x {
				y.columns[i].refs = nil
				y.columns[i].kind = 'b'
			}
		}
	}
}

// toggle begins or ends a transaction beside the others, with rows.
func (s *storm) toggle() {
	if s.opened {
		s.t.Logf("%s the open transaction ends", clock())
		s.release(s.open)
		s.opened = false
		return
	}
	x := s.tables[s.rng.IntN(len(s.tables))]
	sql := x.insert(s, 2)
	x.next += 2
	if _, err := s.open.PgConn().Exec(s.t.Context(), "BEGIN; SET LOCAL lock_timeout = '300ms'; "+sql).ReadAll(); err != nil {
		s.release(s.open)
		return
	}
	s.t.Logf("%s a transaction stays open: %s", clock(), sql)
	s.opened = true
}

// settle waits until the target has everything, and the indexes.
func (s *storm) settle() {
	if s.m.caughtUpWithin(waitLimit); s.m.undecodable {
		return
	}
	eventually(s.t, waitLimit, "the indexes are built", func() (bool, string) {
		v, err := s.m.view()
		return err == nil && !v.Status.Building, fmt.Sprint(err)
	})
}

// hashed is the end of an index's name where another table's index had the name.
var hashed = regexp.MustCompile(`_[0-9a-f]{8}\b`)

// requireBuilt looks for indexes and constraints that are missing without a word.
func (s *storm) requireBuilt() {
	s.t.Helper()
	told := strings.Count(s.m.log(), "the target goes without it")
	var missing []string
	var joined []string
	for _, x := range s.tables {
		if x.joined {
			joined = append(joined, pg.Literal(x.String())+"::regclass")
		}
	}
	// A table that joins a running mirror gets no foreign keys.
	where := " AND NOT (contype = 'f' AND conrelid = ANY (ARRAY[" + strings.Join(joined, ",") + "]::regclass[]))"
	for _, sql := range []string{
		`SELECT indexdef FROM pg_indexes WHERE schemaname IN ('public', 'shop')`,
		`SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'shop'))` + where,
	} {
		have := s.dst.query(s.t, strings.TrimSuffix(sql, where))
		for i := range have {
			have[i][0] = hashed.ReplaceAllString(have[i][0], "")
		}
		for _, row := range s.src.query(s.t, sql+" ORDER BY 1") {
			if !slices.ContainsFunc(have, func(h []string) bool { return h[0] == row[0] }) {
				missing = append(missing, row[0])
			}
		}
	}
	if len(missing) > 0 {
		s.t.Logf("%d missing, %d told:\n%s", len(missing), told, strings.Join(missing, "\n"))
	}
	if len(missing) > 2*told {
		s.t.Errorf("the target lacks %d indexes and constraints, and weir told of %d", len(missing), told)
	}
}
