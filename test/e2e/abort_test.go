package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestAbortBehindALock: what was written ahead of its commit waits for a lock at the target when the source rolls it back. The
// wait ends with an error, which reaches the mirror although it is waiting for the rollback.
func TestAbortBehindALock(t *testing.T) {
	t.Parallel()
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text); INSERT INTO a SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i`)
	m := newMirror(t, src, dst, "public.*", "--set", "sink.batch.bytes=64kB")
	m.start()
	m.caughtUp()
	lock, err := pgx.Connect(t.Context(), dst.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close(context.Background()) }()
	if _, err := lock.Exec(t.Context(), `BEGIN; SELECT FROM a WHERE id = 7 FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	src.exec(t, `BEGIN; UPDATE a SET v = v || 'never'; SELECT pg_sleep(3); ROLLBACK`, `INSERT INTO a VALUES (30000, 'behind')`)
	<-time.After(13 * time.Second) // longer than weir waits for a lock
	if _, err := lock.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}
