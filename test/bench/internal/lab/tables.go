package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A Table of the source: bigint key, int, numeric, 64 characters of text, timestamptz.
type Table struct {
	Name string
	Rows int
}

// Tables names n tables of equal size.
func Tables(n, rows int) []Table {
	var all []Table
	for i := range n {
		all = append(all, Table{fmt.Sprintf("t%d", i+1), rows})
	}
	return all
}

func (t Table) create() string {
	return "CREATE TABLE public." + t.Name + ` (
		id bigint PRIMARY KEY, n int NOT NULL, amount numeric NOT NULL, note text NOT NULL, at timestamptz NOT NULL)`
}

// fill inserts the rows of these keys in one statement. What a row holds follows from its key alone.
func (t Table) fill(from, to int) string {
	return fmt.Sprintf(`INSERT INTO public.%s SELECT i, (i * 7919) %% 1000003, (i %% 1000000) / 100.0,
		md5(i::text) || md5((i + 1)::text), timestamptz '2024-01-01 00:00:00+00' + i * interval '1 second'
		FROM generate_series(%d::bigint, %d) i`, t.Name, from, to)
}

// Fill inserts rows into the table in one transaction.
func (s *Session) Fill(ctx context.Context, t Table, from, to int) error {
	return s.Exec(ctx, t.fill(from, to))
}

// FillOne inserts one row and commits, with a prepared statement.
func (s *Session) FillOne(ctx context.Context, t Table, key int) error {
	return s.Do(ctx, "INSERT INTO public."+t.Name+` VALUES ($1, 1, 1.5, md5('one row') || md5('of text'), now())`, key)
}

// CreateTables makes the source's tables in this session's database, empty: what a user of built-in replication does by
// hand.
func (s *Session) CreateTables(ctx context.Context, tables []Table) error {
	for _, t := range tables {
		if err := s.Exec(ctx, t.create()); err != nil {
			return err
		}
	}
	return nil
}

// procedures make backlogs: many small transactions from one statement, because a client could not write them as fast
// as they are to be read. Keys to update come from a hash of a counter: random, and the same in every turn. A key that
// comes twice in one transaction is updated once, so the procedure tells how many rows it wrote.
var procedures = `
CREATE SCHEMA lab;
CREATE PROCEDURE lab.inserts(total int, per int, INOUT written bigint) LANGUAGE plpgsql AS $$
BEGIN
	written := 0;
	FOR lowest IN 1 .. total BY per LOOP
		INSERT INTO public.t1 SELECT i, (i * 7919) % 1000003, (i % 1000000) / 100.0,
			md5(i::text) || md5((i + 1)::text), timestamptz '2024-01-01 00:00:00+00' + i * interval '1 second'
			FROM generate_series(lowest::bigint, least(lowest + per - 1, total)::bigint) i;
		written := written + least(per, total - lowest + 1);
		COMMIT;
	END LOOP;
END $$;
` + updating("updates", 1) + updating("updates_of_two", 2)

// updating is a procedure that updates rows of the first tables, an equal share of each transaction's rows in each.
func updating(name string, tables int) string {
	var one strings.Builder
	for i := range tables {
		fmt.Fprintf(&one, `
		UPDATE public.t%d t SET n = t.n + 1, amount = t.amount + 0.01, at = t.at + interval '1 millisecond'
			FROM (SELECT DISTINCT 1 + abs(hashint8extended(i, %d) %% keys) AS id
				FROM generate_series(lowest::bigint, least(lowest + per / %d - 1, total)::bigint) i) k
			WHERE t.id = k.id;
		GET DIAGNOSTICS batch = ROW_COUNT;
		written := written + batch;`, i+1, 42+i, tables)
	}
	return `
CREATE PROCEDURE lab.` + name + `(total int, per int, keys int, INOUT written bigint) LANGUAGE plpgsql AS $$
DECLARE
	batch bigint;
BEGIN
	written := 0;
	FOR lowest IN 1 .. total BY per LOOP` + one.String() + `
		COMMIT;
	END LOOP;
END $$;`
}

// Inserts writes a backlog of inserts into the first table and returns the number of rows.
func (s *Session) Inserts(ctx context.Context, rows, perTransaction int) (int64, error) {
	return s.backlog(ctx, fmt.Sprintf("CALL lab.inserts(%d, %d, 0)", rows, perTransaction))
}

// Updates writes a backlog of updates of random rows of the first table, which has this many keys.
func (s *Session) Updates(ctx context.Context, rows, perTransaction, keys int) (int64, error) {
	return s.backlog(ctx, fmt.Sprintf("CALL lab.updates(%d, %d, %d, 0)", rows, perTransaction, keys))
}

// UpdatesOfTwo is Updates of the first two tables, half of each transaction's rows in either.
func (s *Session) UpdatesOfTwo(ctx context.Context, rows, perTransaction, keys int) (int64, error) {
	written, err := s.backlog(ctx, fmt.Sprintf("CALL lab.updates_of_two(%d, %d, %d, 0)", rows, perTransaction, keys))
	if err != nil {
		return 0, err
	}
	return written + 2, s.Exec(ctx, fmt.Sprintf("UPDATE public.t1 SET n = %d WHERE id = 1; UPDATE public.t2 SET n = %[1]d WHERE id = 1", lastOfTwo))
}

// lastOfTwo is what the last transaction of UpdatesOfTwo writes.
const lastOfTwo = -1

// BothArrived tells whether the last transaction of UpdatesOfTwo has arrived here in both tables. Where commits are not
// one cut, the mark behind it may be here before.
func (s *Session) BothArrived(ctx context.Context) (bool, error) {
	n, err := s.Int(ctx, fmt.Sprintf("SELECT (SELECT count(*) FROM public.t1 WHERE id = 1 AND n = %d) + (SELECT count(*) FROM public.t2 WHERE id = 1 AND n = %[1]d)", lastOfTwo))
	return n == 2, err
}

func (s *Session) backlog(ctx context.Context, call string) (int64, error) {
	// The source has to write the backlog, not to be measured while it does.
	err := s.Exec(ctx, "SET synchronous_commit = off", "SET enable_hashjoin = off", "SET enable_mergejoin = off")
	if err != nil {
		return 0, err
	}
	written, err := s.Int(ctx, call)
	if err != nil {
		return 0, err
	}
	return written, s.Exec(ctx, "RESET synchronous_commit")
}

// Marks is the table whose rows tell how far a replica has come: First is updated before a backlog, Last after it.
func Marks() Table { return Table{"mark", 2} }

// A Mark is the key of a row of the marks.
type Mark int

// The marks.
const (
	First Mark = 1
	Last  Mark = 2
)

// SetMark writes a mark in a transaction of its own.
func (s *Session) SetMark(ctx context.Context, m Mark, n int) error {
	return s.Do(ctx, "UPDATE public.mark SET n = $2 WHERE id = $1", int(m), n)
}

// Marked tells whether a mark has arrived here.
func (s *Session) Marked(ctx context.Context, m Mark, n int) (bool, error) {
	at, err := s.Int(ctx, "SELECT n::bigint FROM public.mark WHERE id = $1", int(m))
	return at == int64(n), err
}

// A Copy follows the first copy of tables at the target without asking the contender. It is done when every table has
// its primary key and its rows are visible.
type Copy struct {
	session *Session
	tables  []Table
	sizes   []int64 // of the source's tables
	keyed   bool    // all primary keys are there
	next    int     // first table not known to be complete
}

// NewCopy prepares to follow a copy.
func NewCopy(ctx context.Context, source, target *Session, tables []Table) (*Copy, error) {
	c := &Copy{session: target, tables: tables}
	for _, t := range tables {
		size, err := source.Int(ctx, "SELECT pg_relation_size($1::text::regclass)", "public."+t.Name)
		if err != nil {
			return nil, err
		}
		c.sizes = append(c.sizes, size)
	}
	return c, nil
}

// samples is how many rows of a larger table are looked for. They lie all over the table, so that no part of a parallel
// copy can be missing; all rows are compared after the clock has stopped.
const samples = 1000

// Done looks. It is made to cost little while the answer is no, since it takes time from the two cores it measures:
// first the catalog, then file sizes, then rows, and never again what was once complete.
func (c *Copy) Done(ctx context.Context) (bool, error) {
	if !c.keyed {
		keys, err := c.session.Int(ctx, `SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
			WHERE c.relnamespace = 'public'::regnamespace AND i.indisprimary AND i.indisvalid`)
		if err != nil || keys < int64(len(c.tables)) {
			return false, err
		}
		c.keyed = true
	}
	for ; c.next < len(c.tables); c.next++ {
		if done, err := c.complete(ctx, c.next); !done || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *Copy) complete(ctx context.Context, i int) (bool, error) {
	t := c.tables[i]
	if t.Rows <= samples {
		// Without arguments it is not prepared: thousands of prepared statements would only fill memory.
		all, err := c.session.count(ctx, "SELECT count(*) FROM public."+t.Name)
		return all == int64(t.Rows), err
	}
	size, err := c.session.Int(ctx, "SELECT pg_relation_size($1::text::regclass)", "public."+t.Name)
	if err != nil || size < c.sizes[i]*95/100 {
		return false, err
	}
	there, err := c.session.Int(ctx, "SELECT count(*) FROM public."+t.Name+" WHERE id = ANY($1)", keysOf(t.Rows))
	return there == samples, err
}

// keysOf spreads the samples from the first key to the last.
func keysOf(rows int) []int64 {
	keys := make([]int64, samples)
	for i := range keys {
		keys[i] = 1 + int64(i)*int64(rows-1)/(samples-1)
	}
	return slices.Compact(keys)
}
