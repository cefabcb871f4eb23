package e2e

import (
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/api"
	testenv "github.com/weirstream/weir/test/env"
)

// TestRemoveAtRest: a table that is removed and added again while nobody looks is copied again, or before a running mirror has seen it, whatever has become of it at
// the target meanwhile.
func TestRemoveAtRest(t *testing.T) {
	t.Parallel()
	type at struct {
		m     *mirror
		proxy *testenv.Proxy
	}
	rests := map[string]func(t *testing.T, a at) (resume func()){
		"running": func(*testing.T, at) func() { return func() {} },
		"paused": func(t *testing.T, a at) func() {
			a.m.mustCLI("pipelines", "pause", a.m.name, "--wait")
			return func() { a.m.mustCLI("pipelines", "resume", a.m.name) }
		},
		"about to pause": func(t *testing.T, a at) func() {
			a.m.mustCLI("pipelines", "pause", a.m.name)
			return func() { a.m.mustCLI("pipelines", "resume", a.m.name) }
		},
		"failed": func(t *testing.T, a at) func() {
			a.m.dst.exec(t, `INSERT INTO a VALUES (5000, 'not of the source')`)
			a.m.src.exec(t, `INSERT INTO a VALUES (5000, 'in the way')`)
			a.m.failsWith("W4003")
			return func() {
				a.m.dst.exec(t, `DELETE FROM a WHERE id = 5000`)
				a.m.mustCLI("pipelines", "resume", a.m.name)
			}
		},
		"retrying": func(t *testing.T, a at) func() {
			if err := a.proxy.Refuse(true); err != nil {
				t.Fatal(err)
			}
			a.proxy.Cut()
			eventually(t, waitLimit, "it retries", func() (bool, string) {
				v, err := a.m.view()
				return err == nil && v.Status.Phase == api.PhaseRetrying, describe(v.Status)
			})
			return func() {
				if err := a.proxy.Refuse(false); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for _, c := range []struct {
		name, sql string
		set       []string
	}{
		{"emptied", `TRUNCATE b`, nil},
		{"dropped", `DROP TABLE b`, nil},
		{"emptied, in lanes", `TRUNCATE b`, []string{"--set", "sink.lanes=2"}},
		{"emptied, with a column left out", `TRUNCATE b`, []string{"--exclude-column", "public.b.v"}},
		{"dropped, with a column left out", `DROP TABLE b`, []string{"--exclude-column", "public.b.v"}},
	} {
		for rest, lie := range rests {
			t.Run(c.name+", "+rest, func(t *testing.T) {
				src, dst := pair(t, 15, 15)
				src.exec(t, twoTables)
				proxy := testenv.NewProxy(t, src.srv.Addr())
				m := newMirror(t, src.via(proxy), dst, "public.*", c.set...)
				m.start()
				m.caughtUp()
				m.stop()
				m.server()
				m.caughtUp()
				resume := lie(t, at{m, proxy})
				m.mustCLI("pipelines", "tables", "remove", m.name, "public.b", "--yes")
				dst.exec(t, c.sql)
				src.exec(t, `UPDATE b SET v = 'later' WHERE id = 7`, `DELETE FROM b WHERE id = 8`, `INSERT INTO b VALUES (7000, 'later')`)
				m.mustCLI("pipelines", "tables", "add", m.name, "public.b")
				resume()
				m.caughtUp()
				src.exec(t, `DELETE FROM b WHERE id = 9`)
				m.caughtUp()
				if strings.Contains(c.name, "left out") {
					const rows = `SELECT count(*) || ' ' || sum(id) FROM b`
					if want, got := src.one(t, rows), dst.one(t, rows); got != want {
						t.Errorf("b has %s, at the source %s", got, want)
					}
					if got := dst.one(t, `SELECT count(*) FROM pg_attribute WHERE attrelid = 'b'::regclass AND attname = 'v'`); got != "0" {
						t.Error("the column that is left out is at the target")
					}
					return
				}
				requireEqual(t, src, dst)
				requireConsistent(t, m)
			})
		}
	}
}

// TestRemoveAtRestForGood: what was removed while the mirror rests stays away, is not published any more, and what is not
// meant is not copied again. A target that does not answer is no reason to forget the removal later.
func TestRemoveAtRestForGood(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	proxy := testenv.NewProxy(t, dst.srv.Addr())
	m := newMirror(t, src, dst.via(proxy), "public.*")
	m.start()
	m.caughtUp()
	m.stop()
	m.server()
	m.caughtUp()
	m.mustCLI("pipelines", "pause", m.name, "--wait")
	if err := proxy.Refuse(true); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := m.cli("pipelines", "tables", "remove", m.name, "public.b", "--yes"); code == 0 || !strings.Contains(errOut, "W4001") || !strings.Contains(errOut, "resume "+m.name) {
		t.Fatalf("while the target is away: exit code %d\n%s", code, errOut)
	}
	if v, err := m.view(); err != nil || len(v.Mirror.Except) > 0 {
		t.Fatalf("a refused removal is in the definition: %+v %v", v.Mirror, err)
	}
	if err := proxy.Refuse(false); err != nil {
		t.Fatal(err)
	}
	m.mustCLI("pipelines", "tables", "remove", m.name, "public.b*,public.nothing_*", "--yes")
	if got := src.one(t, `SELECT string_agg(tablename, ' ') FROM pg_publication_tables`); got != "a" {
		t.Errorf("the publication sends %s", got)
	}
	dst.exec(t, `DELETE FROM a WHERE id = 1`) // would come back with a copy
	src.exec(t, `DELETE FROM b WHERE id < 10`, `INSERT INTO a VALUES (6000, 'x')`)
	m.mustCLI("pipelines", "resume", m.name)
	eventually(t, waitLimit, "the mirror goes on", func() (bool, string) {
		got := dst.one(t, `SELECT count(*) || ' ' || count(*) FILTER (WHERE id = 6000) FROM a`)
		return got == "1000 1", got
	})
	if got := dst.one(t, `SELECT count(*) FROM b`); got != "1000" {
		t.Errorf("b has %s rows after its removal, want all that it had", got)
	}
}
