package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/internal/failpoint"
	sink "github.com/weirstream/weir/sinks/postgres"
)

// TestCrashPoints ends the process at every crash point that the source and the target have, at several of its hits,
// and lets a second process go on. A point that is never hit fails the test: a crash that does not happen proves
// nothing.
func TestCrashPoints(t *testing.T) {
	points := []struct {
		point failpoint.Point
		hits  []int
	}{
		{cdc.FailCopyStart, []int{1}},
		{sink.FailLoad, []int{1, 3}},
		{sink.FailLoaded, []int{1, 3}},
		{cdc.FailRead, []int{1, 400}},
		{cdc.FailChunk, []int{1, 2}},
		{sink.FailBeforeApply, []int{1, 9}},
		{sink.FailBeforeLedger, []int{1, 2, 9}},
		{sink.FailBeforeCommit, []int{1, 2, 8}},
		{sink.FailAfterCommit, []int{1, 2, 10}},
		{sink.FailBetweenLanes, []int{1, 2, 3, 9}},
		{cdc.FailConfirm, []int{1, 7}},
		{cdc.FailConfirmed, []int{1, 6}},
	}
	for _, p := range points {
		hits := p.hits
		if *soakFlag {
			for k := 11; k < 60; k += 7 {
				if p.point != cdc.FailCopyStart && p.point != sink.FailLoad && p.point != sink.FailLoaded && p.point != cdc.FailChunk {
					hits = append(hits, k)
				}
			}
		}
		for _, k := range hits {
			t.Run(fmt.Sprintf("%s@%d", p.point, k), func(t *testing.T) {
				t.Parallel()
				crashAt(t, p.point, k)
			})
		}
	}
}

func crashAt(t *testing.T, point failpoint.Point, hit int) {
	src, dst := pair(t, 15, 15)
	src.exec(t, crashSchema...)
	m := newMirror(t, src, dst, "public.*", "--set", "snapshot.chunk.bytes=1MB")
	if point == sink.FailBetweenLanes {
		m.args = append(m.args, "--set", "sink.lanes=3")
	}
	m.env = []string{fmt.Sprintf("WEIR_FAILPOINTS=%s=kill@%d", point, hit)}
	m.start()
	d := startDriver(t, src)
	if err := m.wait(60 * time.Second); err == nil || !strings.Contains(m.log(), failpoint.ErrKill.Error()) {
		t.Fatalf("weir ended with %v, not by the crash point", err)
	}
	// Life goes on while weir is down.
	d.more(t, 5)
	m.env = nil
	m.start()
	d.more(t, 5)
	d.stop(t)
	src.exec(t, `INSERT INTO few(id, v) VALUES (-1, 'last')`) // a change of shape is told by the next row
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}

var crashSchema = []string{
	`CREATE TABLE wide(id int PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text)`,
	`INSERT INTO wide SELECT i, 0, repeat(md5(i::text), 12) FROM generate_series(1, 9000) i`,
	`CREATE TABLE bag(a int, b text)`, `ALTER TABLE bag REPLICA IDENTITY FULL`,
	`INSERT INTO bag SELECT i % 20, 'b' FROM generate_series(1, 200) i`,
	`CREATE TABLE large(id int PRIMARY KEY, n int, body text)`, `ALTER TABLE large ALTER body SET STORAGE EXTERNAL`,
	`INSERT INTO large SELECT i, 0, repeat(md5(i::text), 200) FROM generate_series(1, 30) i`,
	`CREATE TABLE slots(id int PRIMARY KEY, slot int, UNIQUE (slot) DEFERRABLE INITIALLY DEFERRED)`,
	`INSERT INTO slots SELECT i, i FROM generate_series(1, 20) i`,
	`CREATE TABLE few(id int PRIMARY KEY, v text)`,
}

// driver changes the source all the time, by a fixed program whose transactions cover every kind of change.
type driver struct {
	done   chan struct{}
	cancel context.CancelFunc
	steps  chan int
	err    error
}

func startDriver(t *testing.T, src db) *driver {
	t.Helper()
	return startProgram(t, src, driverStep, 2*time.Millisecond)
}

// startProgram runs step(0), step(1) and so on, with a pause between two of them when nobody waits for the next.
func startProgram(t *testing.T, src db, step func(int) string, pause time.Duration) *driver {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := pgx.Connect(ctx, src.url)
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{done: make(chan struct{}), cancel: cancel, steps: make(chan int)}
	go func() {
		defer close(d.done)
		defer func() { _ = conn.Close(context.Background()) }()
		for n := 0; ctx.Err() == nil; n++ {
			// A statement is never cut short: what the driver did is then a whole number of transactions.
			if _, err := conn.PgConn().Exec(context.Background(), step(n)).ReadAll(); err != nil {
				d.err = fmt.Errorf("step %d %s: %w", n, step(n), err)
				return
			}
			select {
			case d.steps <- n:
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-d.done })
	return d
}

// more waits until the driver has done n more transactions.
func (d *driver) more(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-d.steps:
		case <-d.done:
			t.Fatalf("the driver ended: %v", d.err)
		}
	}
}

func (d *driver) stop(t *testing.T) {
	t.Helper()
	d.cancel()
	<-d.done
	if d.err != nil {
		t.Fatal(d.err)
	}
}

// driverStep is the n-th transaction. Large ones exceed the server's decoding memory, so they are sent while open.
func driverStep(n int) string {
	id := n*7919%9000 + 1
	switch n % 14 {
	case 0:
		return fmt.Sprintf(`UPDATE wide SET n = n + 1 WHERE id BETWEEN %d AND %d`, id, id+9)
	case 1:
		return fmt.Sprintf(`BEGIN; DELETE FROM wide WHERE id = %d; INSERT INTO few VALUES (%d, 'x') ON CONFLICT DO NOTHING; COMMIT`, id, n)
	case 2:
		return fmt.Sprintf(`UPDATE large SET n = %d WHERE id %% 7 = %d`, n, n%7)
	case 3:
		return fmt.Sprintf(`BEGIN; UPDATE large SET id = -id WHERE id = %d; UPDATE large SET n = n + 1 WHERE id = %d; COMMIT`, n%30+1, -(n%30 + 1))
	case 4:
		return fmt.Sprintf(`INSERT INTO bag VALUES (%d, NULL), (%d, 'b'), (%d, 'b')`, n%20, n%20, n%20)
	case 5:
		return fmt.Sprintf(`BEGIN; DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = %d LIMIT 1); UPDATE bag SET b = 'c' WHERE a = %d; COMMIT`, n%20, (n+1)%20)
	case 6:
		return fmt.Sprintf(`BEGIN; UPDATE slots SET slot = CASE id WHEN %[1]d THEN (SELECT slot FROM slots WHERE id = %[2]d) ELSE (SELECT slot FROM slots WHERE id = %[1]d) END
			WHERE id IN (%[1]d, %[2]d); COMMIT`, n%20+1, (n+5)%20+1)
	case 7: // large, with a savepoint that is rolled back in its middle
		return fmt.Sprintf(`BEGIN; UPDATE wide SET n = %[1]d WHERE id %% 9 = 1; SAVEPOINT a; UPDATE wide SET n = -1; ROLLBACK TO a;
			UPDATE wide SET n = n + 1 WHERE id %% 9 = 2; COMMIT`, n)
	case 8: // large, and rolled back
		return `BEGIN; UPDATE wide SET n = -2; ROLLBACK`
	case 9:
		return `BEGIN; TRUNCATE few; INSERT INTO few SELECT i, 'again' FROM generate_series(1, 50) i; COMMIT`
	case 10:
		return fmt.Sprintf(`ALTER TABLE few ADD COLUMN IF NOT EXISTS c%d int DEFAULT %d`, n%3, n)
	case 11:
		return fmt.Sprintf(`BEGIN; CREATE TABLE made_%[1]d(id int PRIMARY KEY, v text); INSERT INTO made_%[1]d SELECT i, 'v' FROM generate_series(1, 100) i; COMMIT`, n)
	case 12:
		return fmt.Sprintf(`BEGIN; INSERT INTO made_%[1]d VALUES (%[2]d, 'later'); UPDATE made_%[1]d SET id = id + 500 WHERE id < 20; COMMIT`, n-1, 1000+n)
	default:
		if n > 60 {
			return strings.Join([]string{fmt.Sprintf(`DROP TABLE IF EXISTS made_%d`, n-44)}, ";")
		}
		return fmt.Sprintf(`UPDATE wide SET id = id + 100000 WHERE id = %d`, id)
	}
}
