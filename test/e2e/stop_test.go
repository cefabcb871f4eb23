package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	testenv "github.com/weirstream/weir/test/env"
)

// TestSourceStops: a server that is stopped waits until whoever reads its log has confirmed all of it. It must not have to
// wait for longer than weir needs to write what came.
func TestSourceStops(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, s *testenv.Server, open func(rows int)){
		"idle":                       func(*testing.T, *testenv.Server, func(int)) {},
		"beside an open transaction": func(_ *testing.T, _ *testenv.Server, open func(int)) { open(20000) },
		"beside several":             func(_ *testing.T, _ *testenv.Server, open func(int)) { open(20000); open(1); open(20000) },
		"behind a crash that left one without an end": func(t *testing.T, s *testenv.Server, open func(int)) {
			open(20000)
			if err := s.Restart(testenv.Immediate); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("logical_decoding_work_mem", "64kB"))
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id serial PRIMARY KEY, v text)`, `INSERT INTO a(v) SELECT 'v' FROM generate_series(1, 1000)`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			prepare(t, server, func(rows int) {
				conn, err := pgx.Connect(t.Context(), src.url)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close(context.Background()) })
				if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Exec(t.Context(), `INSERT INTO a(v) SELECT repeat('w', 100) FROM generate_series(1, $1)`, rows); err != nil {
					t.Fatal(err)
				}
			})
			m.caughtUp() // reads again
			src.exec(t, `INSERT INTO a(v) VALUES ('behind')`)
			begun := time.Now()
			if err := server.Stop(testenv.Fast); err != nil {
				t.Fatalf("the source does not stop: %v\n%s", err, m.logTail(20))
			}
			t.Logf("stopped within %v", time.Since(begun).Round(time.Millisecond))
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			src.exec(t, `INSERT INTO a(v) VALUES ('again')`)
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}
