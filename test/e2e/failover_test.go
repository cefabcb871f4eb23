package e2e

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

// A site is a primary with a standby behind one address.
type site struct {
	*mirror
	primary, standby *testenv.Server
	proxy            *testenv.Proxy
}

func addressOf(s *testenv.Server) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

func newSite(t *testing.T, v testenv.Version) *site {
	t.Helper()
	primary := testenv.Postgres(t, v, testenv.FsyncOff())
	src := newDB(t, primary, "src")
	src.exec(t, "CREATE TABLE item(id int PRIMARY KEY, v text)", "INSERT INTO item SELECT i, 'first' FROM generate_series(1, 100) i")
	standby := primary.Standby(t)
	standby.WaitReplayed(t, primary)
	p := testenv.NewProxy(t, addressOf(primary))
	s := &site{primary: primary, standby: standby, proxy: p}
	s.mirror = newMirror(t, src.via(p), newDB(t, target(t, v), "dst"), "public.*")
	s.server()
	body, err := json.Marshal(api.MirrorSpec{Name: s.name, Source: api.Connection{URL: s.src.url}, Target: api.Connection{URL: s.dst.url},
		Tables: []string{"public.*"}, Options: map[string]string{"heartbeat.interval": "100ms", "discovery.interval": "200ms"}})
	if err != nil {
		t.Fatal(err)
	}
	base, err := s.address()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(base+"/api/v1/pipelines", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("create the mirror: %s", resp.Status)
	}
	s.caughtUp()
	return s
}

// failover lets the standby take the dead primary's place. before is done while neither of them runs.
func (s *site) failover(before func()) {
	s.t.Helper()
	if err := s.primary.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if before != nil {
		if err := s.standby.Stop(testenv.Fast); err != nil {
			s.t.Fatal(err)
		}
		before()
		if err := s.standby.Start(); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.standby.Promote(); err != nil {
		s.t.Fatal(err)
	}
	s.src.srv = s.standby
}

// TestFailoverToStandbyBehind: the promoted server never had what was mirrored last. Its log says other things at the
// same positions, and a slot of the right name hides it.
func TestFailoverToStandbyBehind(t *testing.T) {
	for _, v := range []testenv.Version{15} {
		t.Run(v.String(), func(t *testing.T) {
			s := newSite(t, v)
			slot := s.slot()
			s.standby.Exec(t, "postgres", "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
			eventually(t, waitLimit, "the standby receives no more", func() (bool, string) {
				n := s.primary.Query(t, "postgres", "SELECT count(*) FROM pg_stat_replication WHERE application_name = '"+s.standby.Name+"'")[0][0]
				return n == "0", n
			})
			s.primary.Exec(t, s.src.name, "INSERT INTO item SELECT i, repeat('lost', 100) FROM generate_series(101, 5000) i")
			s.caughtUp()
			s.failover(nil)
			s.src.exec(t, "SELECT pg_create_logical_replication_slot("+pg.Literal(slot)+", 'pgoutput')")
			s.proxy.Redirect(addressOf(s.standby))
			s.src.exec(t, "INSERT INTO item SELECT i, 'other' FROM generate_series(5001, 9000) i")
			failed := s.failsWith("W1006")
			if !strings.Contains(failed.Message, "left timeline 1 at") || !strings.Contains(failed.Hint, "weir help W1003") {
				t.Errorf("the failure says: %+v", failed)
			}
		})
	}
}

// TestFailoverGoesOn: a standby that has everything may take over, and its timeline is known from then on.
func TestFailoverGoesOn(t *testing.T) {
	for _, v := range []testenv.Version{15} {
		t.Run(v.String(), func(t *testing.T) {
			s := newSite(t, v)
			slot := s.slot()
			s.mustCLI("pipelines", "pause", s.name) // nothing is mirrored that the standby has not got
			s.primary.Exec(t, s.src.name, "INSERT INTO item SELECT i, 'kept' FROM generate_series(101, 150) i")
			s.standby.WaitReplayed(t, s.primary)
			s.failover(func() {
				// As those do who carry slots over by copying their files.
				const dir = "data/pg_replslot"
				if out, err := exec.Command("cp", "-a", filepath.Join(s.primary.Dir, dir, slot), filepath.Join(s.standby.Dir, dir)).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			})
			s.proxy.Redirect(addressOf(s.standby))
			s.src.exec(t, "INSERT INTO item SELECT i, 'new' FROM generate_series(151, 250) i")
			s.mustCLI("pipelines", "resume", s.name)
			s.caughtUp()
			requireEqual(t, s.src, s.dst)
			// The position lies behind the switch by now: the next start must know the timeline.
			s.kill()
			s.server()
			s.src.exec(t, "INSERT INTO item VALUES (251, 'newer')")
			s.caughtUp()
			requireEqual(t, s.src, s.dst)
			if system := s.dst.one(t, `SELECT convert_from(value, 'UTF8') FROM "_weir"."state" WHERE key = 'system'`); !strings.HasSuffix(system, "/2") {
				t.Errorf("stored server: %s", system)
			}
		})
	}
}
