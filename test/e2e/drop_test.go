package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	testenv "github.com/weirstream/weir/test/env"
)

// TestDropUnderLoad: tables go while the stream never rests, and weir and the target die. What the mirror notes about a
// dropped table carries a position, and rows in front of it must not be behind it.
func TestDropUnderLoad(t *testing.T) {
	t.Parallel()
	target := testenv.Postgres(t, 15, testenv.FsyncOff())
	src, dst := newDB(t, source(t, 15), "src"), newDB(t, target, "dst")
	src.exec(t, `CREATE TABLE seen(id int PRIMARY KEY, v text)`)
	m := newMirror(t, src, dst, "public.*", "--set", "discovery.interval=100ms")
	m.start()
	m.caughtUp()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work sync.WaitGroup
	rows := startProgram(t, src, func(i int) string {
		return fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..500 LOOP INSERT INTO seen VALUES (%d * 500 + i, 'row'); COMMIT; END LOOP; END $$`, i)
	}, 0)
	tables := startProgram(t, src, func(i int) string {
		if i < 3 {
			return fmt.Sprintf(`CREATE TABLE goes_%d(id int PRIMARY KEY)`, i)
		}
		return fmt.Sprintf(`CREATE TABLE goes_%d(id int PRIMARY KEY); DROP TABLE goes_%d`, i, i-3)
	}, 150*time.Millisecond)
	// The queue between source and target fills, so the reader stands still with rows in its hands.
	work.Go(func() {
		for ctx.Err() == nil {
			_, _ = target.Run(ctx, dst.name, `BEGIN; LOCK TABLE seen IN EXCLUSIVE MODE; SELECT pg_sleep(0.3); COMMIT`)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	for i := range 8 {
		<-time.After(1500 * time.Millisecond)
		if i%2 == 0 {
			m.kill()
			m.start()
			continue
		}
		if err := target.Restart(testenv.Immediate); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	work.Wait()
	rows.stop(t)
	tables.stop(t)
	m.caughtUp()
	requireEqual(t, src, dst)
	requireConsistent(t, m)
}
