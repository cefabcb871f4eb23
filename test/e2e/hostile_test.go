package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	testenv "github.com/weirstream/weir/test/env"
)

const (
	accounts    = 40
	initialSum  = accounts * 1000
	hostileTime = 60 * time.Second
	roundTime   = 12 * time.Second
	writers     = 3
)

// TestHostile lets an application do everything that Postgres allows, while everything that can break breaks, and
// compares the databases whenever the application rests.
func TestHostile(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay the actions with -args -seed %d", seed)
	length := *hostileFlag
	switch {
	case length > 0:
	case *soakFlag:
		length = 10 * time.Minute
	default:
		length = hostileTime
	}
	if !*soakFlag {
		hostileOn(t, 15, seed, length)
		return
	}
	for _, sv := range testenv.Versions()[1:] { // 12 cannot publish a partitioned table under its root
		t.Run(sv.String(), func(t *testing.T) { hostileOn(t, sv, seed, length) })
	}
}

func hostileOn(t *testing.T, sv testenv.Version, seed uint64, length time.Duration) {
	h := &hostile{t: t, rng: rand.New(rand.NewPCG(seed, 1)), seed: seed, faults: map[string]int{}, reshapes: 6}
	if seed%2 == 1 {
		h.reshapes = 100 // a change of shape in an open transaction ends writing ahead until weir is started again
	}
	h.source = testenv.Postgres(t, sv, testenv.FsyncOff(), testenv.WithSetting("logical_decoding_work_mem", "64kB"))
	h.target = testenv.Postgres(t, 15, testenv.FsyncOff())
	h.src, h.dst = newDB(t, h.source, "src"), newDB(t, h.target, "dst")
	h.src.exec(t, hostileSchema...)
	sp, tp := testenv.NewProxy(t, h.source.Addr()), testenv.NewProxy(t, h.target.Addr())
	h.proxies = []*testenv.Proxy{sp, tp}
	h.m = newMirror(t, h.src.via(sp), h.dst.via(tp), "*.*", "--set", "snapshot.chunk.bytes=1MB", "--set", "on.missing.row=error")
	h.m.start()
	stopReader := h.read()
	end := time.Now().Add(length)
	// On a slow machine servers take long to come back; then it takes longer until everything was tried.
	for round := 1; time.Now().Before(end) || length >= hostileTime && h.untried() && round < 20; round++ {
		left := time.Until(end)
		if left <= 0 {
			left = roundTime
		}
		h.round(round, min(roundTime, left))
		if t.Failed() {
			break
		}
		if h.m.undecodable {
			stopReader()
			t.Logf("nothing can be told: the source cannot decode its log\n%s", h.m.logTail(10))
			return
		}
	}
	if n := stopReader(); n == 0 && !t.Failed() {
		t.Error("the reader of the target never saw the bank")
	}
	t.Logf("%d transactions, %d refused by a broken server, faults %v", h.done.Load(), h.lost.Load(), h.faults)
	for _, f := range faultNames {
		if h.faults[f] == 0 && length >= hostileTime {
			t.Errorf("fault %q was never tried", f)
		}
	}
}

var hostileSchema = []string{
	`CREATE TABLE accounts(id int PRIMARY KEY, balance bigint NOT NULL, note text)`,
	fmt.Sprintf(`INSERT INTO accounts SELECT i, 1000, NULL FROM generate_series(1, %d) i`, accounts),
	`CREATE SCHEMA shop`, `CREATE SCHEMA "We""ird"`,
	`CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent, late')`, `CREATE DOMAIN shop.qty AS int CHECK (VALUE >= 0)`,
	`CREATE TABLE shop.orders(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int, state shop.state, qty shop.qty, total numeric(12,2), doc jsonb, tags text[], big text, at timestamptz DEFAULT now())`,
	`ALTER TABLE shop.orders ALTER big SET STORAGE EXTERNAL`,
	`INSERT INTO shop.orders(customer, state, qty, total, big) SELECT i, 'new', i, i * 1.5, repeat(md5(i::text), 100) FROM generate_series(1, 2000) i`,
	`CREATE TABLE shop.lines(order_id bigint, line int, item text, n int, PRIMARY KEY (order_id, line))`,
	`INSERT INTO shop.lines SELECT i / 5, i % 5, 'item', 1 FROM generate_series(1, 10000) i`,
	`CREATE TABLE seats(id int PRIMARY KEY, seat int NOT NULL, UNIQUE (seat) DEFERRABLE INITIALLY DEFERRED)`, `INSERT INTO seats SELECT i, i FROM generate_series(1, 50) i`,
	`CREATE TABLE names(id int PRIMARY KEY, name text UNIQUE)`, `INSERT INTO names SELECT i, 'n' || i FROM generate_series(1, 50) i`,
	`CREATE TABLE bag(a int, b text, j json)`, `ALTER TABLE bag REPLICA IDENTITY FULL`, `INSERT INTO bag SELECT i % 10, 'b', '{"a":1}' FROM generate_series(1, 100) i`,
	`CREATE TABLE full_big(id int PRIMARY KEY, n int, big text)`, `ALTER TABLE full_big REPLICA IDENTITY FULL`, `ALTER TABLE full_big ALTER big SET STORAGE EXTERNAL`,
	`INSERT INTO full_big SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 50) i`,
	`CREATE TABLE part(id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
	`CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a')`, `CREATE TABLE part_b PARTITION OF part FOR VALUES IN ('b')`, `CREATE TABLE part_x PARTITION OF part DEFAULT`,
	`INSERT INTO part SELECT i, chr(97 + i % 4), 'v' FROM generate_series(1, 400) i`,
	`CREATE TABLE gen(id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED)`, `INSERT INTO gen SELECT i, i FROM generate_series(1, 100) i`,
	`CREATE TABLE "We""ird"."Ta.b'le"("K ey" text PRIMARY KEY, "select" text)`, `INSERT INTO "We""ird"."Ta.b'le" SELECT 'k' || i, 'v' FROM generate_series(1, 100) i`,
	`CREATE TABLE by_index(k text NOT NULL, n int, v text)`, `CREATE UNIQUE INDEX by_index_k ON by_index(k)`, `ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_k`,
	`INSERT INTO by_index SELECT 'k' || i, i, 'v' FROM generate_series(1, 100) i`,
	`CREATE TABLE shape(id int PRIMARY KEY, grow int, fixed text)`, `INSERT INTO shape SELECT i, i, 'f' FROM generate_series(1, 100) i`,
	`CREATE TABLE scratch(id int PRIMARY KEY, v text)`,
	`CREATE TABLE events(id bigint PRIMARY KEY, writer int)`,
}

type hostile struct {
	t              *testing.T
	rng            *rand.Rand // of the faults
	seed           uint64
	source, target *testenv.Server
	src, dst       db
	proxies        []*testenv.Proxy
	m              *mirror
	events         atomic.Int64
	made           atomic.Int64
	done, lost     atomic.Int64
	faults         map[string]int
	copied         atomic.Bool
	reshapes       int // writer 0 changes a shape once in so many transactions
}

// round writes and breaks for a while, rests, and compares.
func (h *hostile) round(n int, length time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(h.seed, uint64(n*100+w)))
		wg.Go(func() { h.write(ctx, w, rng) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(300+h.rng.IntN(1200)) * time.Millisecond):
			h.fault()
		}
	}
	wg.Wait()
	if !h.m.running() {
		h.m.start()
	}
	h.m.src.srv, h.m.dst.srv = h.source, h.target
	// A change of shape is told by the next row of its table.
	h.src.exec(h.t, `INSERT INTO shape(id) SELECT coalesce(max(id), 0) + 1 FROM shape`)
	h.m.caughtUpWithin(2 * waitLimit)
	if h.m.undecodable {
		return
	}
	h.copied.Store(true)
	requireEqual(h.t, h.src, h.dst)
	requireConsistent(h.t, h.m)
}

var faultNames = []string{"kill weir", "stop weir", "freeze weir", "end walsender", "end target backends", "restart source", "crash source", "restart target", "crash target", "cut"}

func (h *hostile) untried() bool {
	return slices.ContainsFunc(faultNames, func(f string) bool { return h.faults[f] == 0 })
}

func (h *hostile) fault() {
	name := faultNames[h.rng.IntN(len(faultNames))]
	// Each is tried at least once, in an order of the seed's choosing.
	for _, f := range faultNames {
		if h.faults[f] < h.faults[name]-1 {
			name = f
		}
	}
	h.faults[name]++
	h.t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), name)
	switch name {
	case "kill weir":
		h.m.kill()
		h.m.start()
	case "stop weir":
		h.m.signal(syscall.SIGINT)
		_ = h.m.wait(waitLimit) // ends with an error when a server is away
		h.m.start()
	case "freeze weir":
		h.m.signal(syscall.SIGSTOP)
		<-time.After(500 * time.Millisecond)
		h.m.signal(syscall.SIGCONT)
	case "end walsender":
		_, _ = h.source.Run(context.Background(), "postgres", `SELECT pg_terminate_backend(pid) FROM pg_stat_replication`)
	case "end target backends":
		_, _ = h.target.Run(context.Background(), "postgres", `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'weir%'`)
	case "restart source":
		h.must(h.source.Restart(testenv.Fast))
	case "crash source":
		h.must(h.source.Restart(testenv.Immediate))
	case "restart target":
		h.must(h.target.Restart(testenv.Fast))
	case "crash target":
		h.must(h.target.Restart(testenv.Immediate))
	case "cut":
		h.proxies[h.rng.IntN(2)].Cut()
	}
	// `weir mirror` ends when its pipeline fails for good, which nothing here may make it do.
	if !h.m.running() {
		h.t.Errorf("weir ended after %q\n%s", name, h.m.logTail(20))
		h.m.start()
	}
}

// must is for what the servers do. A server that cannot stop usually waits for weir, so it is told what weir does.
func (h *hostile) must(err error) {
	if err != nil {
		h.t.Errorf("%v\n%s", err, h.m.goroutines())
		h.m.start()
	}
}

// read looks at the bank on the target all the time, as an application would: its sum never moves.
func (h *hostile) read() (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	seen := make(chan int)
	go func() {
		n := 0
		defer func() { seen <- n }()
		for ctx.Err() == nil {
			conn, err := pgx.Connect(ctx, h.dst.url)
			if err != nil {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			for ctx.Err() == nil {
				var sum, count int64
				if err := conn.QueryRow(ctx, `SELECT coalesce(sum(balance), 0)::int8, count(*) FROM accounts`).Scan(&sum, &count); err != nil {
					break // the server is being broken
				}
				if !h.copied.Load() && count == 0 {
					continue // not copied yet
				}
				n++
				if sum != initialSum || count != accounts {
					h.t.Errorf("a reader of the target saw %d accounts with %d, want %d with %d", count, sum, accounts, initialSum)
					// What both sides have now may tell which transaction it was.
					h.t.Logf("at %s: source %v\naccounts with their transactions %v\nledger %v", time.Now().UTC().Format("15:04:05.000"),
						h.src.query(h.t, `SELECT sum(balance), count(*) FROM accounts`),
						h.dst.query(h.t, `SELECT id, balance, note, xmin::text FROM accounts ORDER BY xmin::text::bigint, id`), h.dst.query(h.t, `SELECT xmin::text, l::text FROM _weir.ledger l`))
					cancel()
				}
			}
			_ = conn.Close(context.Background())
		}
	}()
	return func() int { cancel(); return <-seen }
}

// write runs transactions until ctx ends. What a broken server refuses is not tried again.
func (h *hostile) write(ctx context.Context, w int, rng *rand.Rand) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, h.src.url); err != nil {
				conn = nil
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
		}
		sql := h.transaction(w, rng)
		_, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
		if err == nil {
			h.done.Add(1)
			continue
		}
		var e *pgconn.PgError
		if errors.As(err, &e) && !strings.HasPrefix(e.Code, "57P") {
			switch e.Code {
			case "40P01", "23505", "42P01", "42701", "42703", "55P03": // the writers' own quarrels
				_, _ = conn.PgConn().Exec(context.Background(), "ROLLBACK").ReadAll()
			default:
				h.t.Errorf("transaction %q: %v", sql, err)
				return
			}
		}
		h.lost.Add(1)
	}
}

// transaction is the next thing that a writer does. Only writer 0 changes shapes, so that no column is renamed and
// dropped by two at a time.
func (h *hostile) transaction(w int, rng *rand.Rand) string {
	n := rng.IntN
	id := func(max int) int { return 1 + n(max) }
	transfer := func() string {
		a, b, x := id(accounts), id(accounts), n(50)
		return fmt.Sprintf(`UPDATE accounts SET balance = balance - %[3]d, note = '%[4]d' WHERE id = %[1]d; UPDATE accounts SET balance = balance + %[3]d WHERE id = %[2]d;`, min(a, b), max(a, b), x, n(1000))
	}
	event := func() string { return fmt.Sprintf(`INSERT INTO events VALUES (%d, %d);`, h.events.Add(1), w) }
	if w == 0 && n(h.reshapes) == 0 {
		return h.reshape(rng)
	}
	kind := n(50)
	if kind >= 22 {
		kind = n(8) // the small ones are the many
	}
	switch kind {
	case 0, 1, 2:
		return "BEGIN;" + transfer() + event() + "COMMIT"
	case 3: // the bank's accounts change their keys and back
		a := id(accounts)
		return fmt.Sprintf(`BEGIN; UPDATE accounts SET id = -id WHERE id = %[1]d; %[2]s UPDATE accounts SET id = -id WHERE id = %[3]d; COMMIT`, a, event(), -a)
	case 4:
		return fmt.Sprintf(`INSERT INTO shop.orders(customer, state, qty, total, doc, tags, big) SELECT %d, 'paid', %d, %d / 7.0, '{"k": [1, 2]}', ARRAY['a', NULL, 'c"d'], repeat('%d', %d) FROM generate_series(1, %d)`,
			id(100), n(10), n(1000), n(10), n(8000), id(5))
	case 5: // the large value stays as it is and is not sent
		return fmt.Sprintf(`UPDATE shop.orders SET total = total + 1, state = 'sent, late' WHERE id %% 97 = %d`, n(97))
	case 6:
		// No two write the same: what is lost is not covered by a later one.
		return fmt.Sprintf(`UPDATE shop.orders SET big = NULL, doc = NULL WHERE id %% 101 = %d; UPDATE shop.orders SET big = repeat('%08x', 700) WHERE id %% 89 = %d`, n(101), rng.Uint32(), n(89))
	case 7:
		return fmt.Sprintf(`BEGIN; DELETE FROM shop.lines WHERE order_id = %[1]d; INSERT INTO shop.lines SELECT %[1]d, i, 'again', %[2]d FROM generate_series(0, 3) i; COMMIT`, n(2000), n(1000000))
	case 8: // sent while it is open, with savepoints rolled back
		return fmt.Sprintf(`BEGIN; %[1]s UPDATE shop.lines SET n = n + 1 WHERE order_id %% 7 = %[2]d; SAVEPOINT s; UPDATE shop.lines SET item = 'never'; DELETE FROM shop.lines WHERE line = 1; ROLLBACK TO s;
			SAVEPOINT s2; INSERT INTO shop.lines SELECT 100000 + i, %[3]d, 'kept', 0 FROM generate_series(1, 300) i ON CONFLICT DO NOTHING; RELEASE s2; UPDATE shop.lines SET item = 'end' WHERE order_id %% 11 = 3; COMMIT`,
			transfer(), n(7), n(50))
	case 9:
		return `BEGIN; UPDATE shop.lines SET n = -1; UPDATE accounts SET balance = 0; ROLLBACK`
	case 10:
		return fmt.Sprintf(`UPDATE seats SET seat = CASE id WHEN %[1]d THEN (SELECT seat FROM seats WHERE id = %[2]d) ELSE (SELECT seat FROM seats WHERE id = %[1]d) END WHERE id IN (%[1]d, %[2]d)`, id(25), 25+id(25))
	case 11:
		a, b := id(25), 25+id(25)
		return fmt.Sprintf(`BEGIN; UPDATE names SET name = 'tmp%[1]d' WHERE id = %[1]d; UPDATE names SET name = 'x%[3]d' WHERE id = %[2]d; UPDATE names SET name = 'y%[3]d' WHERE id = %[1]d; COMMIT`, a, b, rng.Uint32())
	case 12:
		return fmt.Sprintf(`INSERT INTO bag SELECT %d, 'b', '{"a":1}' FROM generate_series(1, 3)`, n(10))
	case 13:
		return fmt.Sprintf(`BEGIN; DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = %[1]d LIMIT 2); UPDATE bag SET b = b || 'c', j = NULL WHERE ctid IN (SELECT ctid FROM bag WHERE a = %[2]d LIMIT 2); COMMIT`, n(10), n(10))
	case 14:
		return fmt.Sprintf(`UPDATE full_big SET n = n + 1 WHERE id %% 10 = %d; UPDATE full_big SET id = id + 1000 WHERE id = %d`, n(10), id(50))
	case 15:
		return fmt.Sprintf(`UPDATE part SET region = '%c', v = 'moved' WHERE id = %d`, 'a'+rune(n(4)), id(400))
	case 16:
		return fmt.Sprintf(`UPDATE gen SET a = %d WHERE id = %d; UPDATE by_index SET k = k || 'x', n = n + 1 WHERE n %% 20 = %d AND length(k) < 40; DELETE FROM by_index WHERE n > 500`, n(1000), id(100), n(20))
	case 17:
		return fmt.Sprintf(`UPDATE "We""ird"."Ta.b'le" SET "select" = E'\\\\N\t%d' WHERE "K ey" = 'k%d'; UPDATE "We""ird"."Ta.b'le" SET "K ey" = "K ey" || '''' WHERE "K ey" = 'k%d'`, n(100), id(100), id(100))
	case 18:
		return fmt.Sprintf(`BEGIN; TRUNCATE scratch; INSERT INTO scratch SELECT i, 'v' FROM generate_series(1, %d) i; %s COMMIT`, n(200), event())
	case 19:
		return fmt.Sprintf(`UPDATE shape SET grow = grow + 1 WHERE id %% 10 = %d; INSERT INTO shape(id, grow, fixed) VALUES (%d, 1, 'f') ON CONFLICT (id) DO UPDATE SET grow = 0; DELETE FROM shape WHERE id = %d`, n(10), 100+n(1000), 100+n(1000))
	case 20: // one key many times in one transaction
		return fmt.Sprintf(`BEGIN; DELETE FROM scratch WHERE id = 1; INSERT INTO scratch VALUES (1, 'a'); UPDATE scratch SET v = 'b' WHERE id = 1; DELETE FROM scratch WHERE id = 1; INSERT INTO scratch VALUES (1, 'c'); UPDATE scratch SET id = 2000 + %d WHERE id = 1; COMMIT`, n(1000000))
	default: // large
		return fmt.Sprintf(`BEGIN; %s INSERT INTO shop.lines SELECT 200000 + i, %d, repeat('z', 50), 0 FROM generate_series(1, 2000) i ON CONFLICT DO NOTHING; DELETE FROM shop.lines WHERE order_id > 200000 AND line = %d; COMMIT`, transfer(), n(20), n(20))
	}
}

// reshape changes a table's shape. What was renamed is never dropped: such a history cannot be told from the log and makes
// weir copy the table again, which would hide what this test is about.
func (h *hostile) reshape(rng *rand.Rand) string {
	n := rng.IntN
	row := fmt.Sprintf(`UPDATE shape SET grow = %d WHERE id = %d;`, n(1000), 1+n(100))
	switch n(8) {
	case 0:
		return fmt.Sprintf(`ALTER TABLE shape ADD COLUMN IF NOT EXISTS c%d text`, n(4))
	case 1:
		return fmt.Sprintf(`ALTER TABLE shape ADD COLUMN IF NOT EXISTS d%d int NOT NULL DEFAULT %d`, n(4), n(100))
	case 2:
		// With a row: dropped and added again under its name with nothing between, a column looks unchanged.
		return fmt.Sprintf(`BEGIN; ALTER TABLE shape DROP COLUMN IF EXISTS c%d; %s COMMIT`, n(4), row)
	case 3:
		return fmt.Sprintf(`BEGIN; %s ALTER TABLE shape DROP COLUMN IF EXISTS d%d; %s COMMIT`, row, n(4), row)
	case 4:
		return fmt.Sprintf(`DO $$ DECLARE c text; BEGIN SELECT attname INTO c FROM pg_attribute WHERE attrelid = 'shape'::regclass AND attnum = 3; EXECUTE format('ALTER TABLE shape RENAME COLUMN %%I TO fixed_%d', c); END $$; %s`, rng.Uint32(), row)
	case 5:
		return []string{`ALTER TABLE shape ALTER grow TYPE bigint`, `ALTER TABLE shape ALTER grow TYPE numeric`, `ALTER TABLE shape ALTER grow TYPE bigint USING grow::bigint`}[n(3)]
	case 6:
		k := h.made.Add(1)
		return fmt.Sprintf(`BEGIN; CREATE TABLE shop.made_%[1]d(id int PRIMARY KEY, v text, big text); INSERT INTO shop.made_%[1]d SELECT i, 'v', repeat('b', 3000) FROM generate_series(1, 500) i; COMMIT;
			UPDATE shop.made_%[1]d SET v = 'w' WHERE id < 100; ALTER TABLE shop.made_%[1]d ADD COLUMN extra int DEFAULT 7; UPDATE shop.made_%[1]d SET id = id + 1000, extra = id WHERE id < 50`, k)
	default:
		k := h.made.Load()
		if k == 0 {
			return row
		}
		return fmt.Sprintf(`DROP TABLE IF EXISTS shop.made_%d; %s`, 1+n(int(k)), row)
	}
}
