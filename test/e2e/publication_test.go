package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env"
)

// TestPublicationOfTheUser: weir uses a publication that is given by name as it is. So it has to be as the mirror wants it,
// or rows would be lost, or come that the mirror's filter drops.
func TestPublicationOfTheUser(t *testing.T) {
	const regions = `CREATE TABLE a(id int, r text, v text, PRIMARY KEY (id, r)); INSERT INTO a SELECT i, CASE i % 2 WHEN 0 THEN 'eu' ELSE 'us' END, 'v' FROM generate_series(1, 100) i`
	const repaired = `ALTER PUBLICATION p DROP TABLE a; ALTER PUBLICATION p ADD TABLE a WHERE ('eu' = r OR false)`
	given := []string{"--set", "publication.name=p"}
	onlyEU := append(given, "--filter", `public.*: r = 'eu'`)
	rows := func(t *testing.T, d db, of, want string) {
		t.Helper()
		eventually(t, waitLimit, "the target has the rows of "+of, func() (bool, string) {
			got := d.one(t, `SELECT count(*) || ' ' || count(*) FILTER (WHERE r <> 'eu') FROM `+of)
			return got == want, got
		})
	}

	t.Run("its filter is not the mirror's", func(t *testing.T) {
		for publication, says := range map[string]string{
			"FOR TABLE a":                  "sends all rows of public.a",
			"FOR TABLE a WHERE (r = 'us')": "where r = 'eu'",
			"FOR ALL TABLES":               "takes every table",
			"FOR TABLES IN SCHEMA public":  "takes every table",
		} {
			src, dst := pair(t, 15, 15)
			src.exec(t, regions, "CREATE PUBLICATION p "+publication)
			m := newMirror(t, src, dst, "public.*", onlyEU...)
			m.start()
			if err := m.wait(waitLimit); err == nil || !strings.Contains(m.log(), says) || !strings.Contains(m.log(), "W1002") {
				t.Errorf("%s: %v\n%s", publication, err, m.logTail(10))
			}
		}
	})

	t.Run("its filter changes while weir is away", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, regions, `CREATE PUBLICATION p FOR TABLE a WHERE ('eu' = r)`)
		m := newMirror(t, src, dst, "public.*", append(given, "--filter", `public.*: 'eu' = r`)...)
		m.start()
		m.caughtUp()
		m.stop()
		src.exec(t, `ALTER PUBLICATION p SET TABLE a`, `INSERT INTO a VALUES (1000, 'us', 'not ours'), (1001, 'eu', 'ours')`)
		m.server()
		if e := m.failsWith("W1007"); !strings.Contains(e.Message, "sends all rows of public.a") {
			t.Errorf("it says %+v", e)
		}
		rows(t, dst, "a", "50 0")
		src.exec(t, repaired)
		m.mustCLI("pipelines", "resume", m.name)
		m.caughtUp()
		m.mustCLI("sources", "refresh", "public.a", "--yes") // as the message advises
		rows(t, dst, "a", "51 0")
	})

	t.Run("its filter changes while weir reads", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, regions, `CREATE PUBLICATION p FOR TABLE a WHERE ('eu' = r)`)
		m := newMirror(t, src, dst, "public.*", append(given, "--filter", `public.*: 'eu' = r`, "--set", "discovery.interval=300ms")...)
		m.start()
		m.caughtUp()
		m.stop()
		m.server()
		m.caughtUp()
		src.exec(t, `ALTER PUBLICATION p SET TABLE a WHERE (r = 'eu' AND true)`) // the same rows
		src.exec(t, `INSERT INTO a VALUES (1000, 'us', 'not ours'), (1001, 'eu', 'ours')`)
		m.caughtUp()
		rows(t, dst, "a", "51 0")
		src.exec(t, `ALTER PUBLICATION p SET TABLE a WHERE (r = 'none')`)
		if e := m.failsWith("W1007"); !strings.Contains(e.Message, "where (r = 'none'") {
			t.Errorf("it says %+v", e)
		}
		src.exec(t, `INSERT INTO a VALUES (1002, 'eu', 'unseen')`, repaired)
		m.mustCLI("pipelines", "resume", m.name)
		m.caughtUp()
		m.mustCLI("sources", "refresh", "public.a", "--yes")
		rows(t, dst, "a", "52 0")
	})

	t.Run("a table joins whose filter is another", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, regions, `CREATE PUBLICATION p FOR TABLE a WHERE (r = 'eu')`)
		m := newMirror(t, src, dst, "public.*", onlyEU...)
		m.start()
		m.caughtUp()
		m.stop()
		m.server()
		m.caughtUp()
		src.exec(t, `BEGIN; CREATE TABLE late(id int, r text, PRIMARY KEY (id, r)); ALTER PUBLICATION p ADD TABLE late; INSERT INTO late SELECT i, 'us' FROM generate_series(1, 9) i; COMMIT`)
		if e := m.failsWith("W1007"); !strings.Contains(e.Message, "sends all rows of public.late") {
			t.Errorf("it says %+v", e)
		}
		src.exec(t, `ALTER PUBLICATION p DROP TABLE late; ALTER PUBLICATION p ADD TABLE late WHERE (r = 'eu')`, `INSERT INTO late VALUES (10, 'eu'), (11, 'us')`)
		m.mustCLI("pipelines", "resume", m.name)
		m.caughtUp()
		src.exec(t, `UPDATE late SET r = 'eu' WHERE id = 11`, `UPDATE a SET r = 'us' WHERE id = 2`)
		m.caughtUp()
		rows(t, dst, "late", "2 0")
		rows(t, dst, "a", "49 0")
	})

	t.Run("a filter over partitions", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, `CREATE TABLE a(id int, r text, PRIMARY KEY (id, r)) PARTITION BY RANGE (id)`, `CREATE TABLE a1 PARTITION OF a FOR VALUES FROM (0) TO (50)`,
			`CREATE TABLE a2 PARTITION OF a FOR VALUES FROM (50) TO (5000)`, `INSERT INTO a SELECT i, CASE i % 2 WHEN 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, 100) i`,
			`CREATE PUBLICATION p FOR TABLE a WHERE (r = 'eu') WITH (publish_via_partition_root = true)`)
		m := newMirror(t, src, dst, "public.*", onlyEU...)
		m.start()
		m.caughtUp()
		src.exec(t, `INSERT INTO a VALUES (10, 'eu2'), (1000, 'us'), (1001, 'eu')`, `UPDATE a SET r = 'us' WHERE id = 2`)
		m.caughtUp()
		rows(t, dst, "a", "50 0")
		m.stop()
		src.exec(t, `ALTER PUBLICATION p SET TABLE a`, `ALTER PUBLICATION p SET (publish_via_partition_root = false)`)
		m.server()
		if e := m.failsWith("W1007"); !strings.Contains(e.Message, "under the names of its partitions") {
			t.Errorf("it says %+v", e)
		}
	})

	t.Run("weir's own is another when the mirror begins", func(t *testing.T) {
		for _, c := range [][3]string{
			{"--filter", `public.a: r = 'eu'`, "id, r"},
			{"--exclude-column", "public.a.v", "id, r"},
			{"--exclude-column", "public.a.v", "id, r, fresh"},
		} {
			src, dst := pair(t, 15, 15)
			src.exec(t, regions)
			m := newMirror(t, src, dst, "public.*", c[0], c[1])
			m.env = []string{"WEIR_FAILPOINTS=X0.source.copy-start=kill@1"}
			m.start()
			if err := m.wait(waitLimit); err == nil {
				t.Fatal("it was not killed")
			}
			m.env = nil
			if strings.Contains(c[2], "fresh") {
				src.exec(t, `ALTER TABLE a ADD fresh int DEFAULT 7`)
			} else {
				src.exec(t, `DO $$ BEGIN EXECUTE format('ALTER PUBLICATION %I SET TABLE a', (SELECT pubname FROM pg_publication)); END $$`)
			}
			m.start()
			m.caughtUp()
			where := "true"
			if c[0] == "--filter" {
				where = "r = 'eu'"
			}
			src.exec(t, `UPDATE a SET id = -id WHERE id < 20`)
			m.caughtUp()
			sum := `SELECT md5(string_agg(x::text, ',' ORDER BY id)) FROM (SELECT ` + c[2] + ` FROM a WHERE ` + where + `) x`
			if want, got := src.one(t, sum), dst.one(t, strings.Replace(sum, where, "true", 1)); want != got {
				t.Errorf("%v: the tables differ", c)
			}
		}
	})

	t.Run("columns", func(t *testing.T) {
		const secret = `CREATE TABLE a(id int PRIMARY KEY, secret text, v text, more text); INSERT INTO a SELECT i, 's', 'v' || i, 'm' FROM generate_series(1, 100) i`
		equal := func(t *testing.T, m *mirror, columns string) {
			t.Helper()
			m.caughtUp()
			sum := `SELECT md5(string_agg(x::text, ',' ORDER BY id)) FROM (SELECT ` + columns + ` FROM a) x`
			eventually(t, waitLimit, "the tables are equal", func() (bool, string) {
				want, got := m.src.one(t, sum), m.dst.one(t, sum)
				return want == got, m.dst.one(t, `SELECT string_agg(attname, ' ') FROM pg_attribute WHERE attrelid = 'a'::regclass AND attnum > 0`)
			})
			if got := m.dst.one(t, `SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attname = 'secret'`); got != "0" {
				t.Error("the target has the column that is left out")
			}
		}
		for name, publication := range map[string]string{"without a list": "FOR TABLE a", "a list with them": "FOR TABLE a (id, more, secret, v)", "a list without them": "FOR TABLE a (id, v, more)"} {
			t.Run(name, func(t *testing.T) {
				src, dst := pair(t, 15, 15)
				src.exec(t, secret, "CREATE PUBLICATION p "+publication)
				m := newMirror(t, src, dst, "public.*", append(given, "--exclude-column", "public.a.secret")...)
				m.start()
				m.caughtUp()
				src.exec(t, `UPDATE a SET v = 'w', secret = 't' WHERE id % 3 = 0`, `INSERT INTO a VALUES (1000, 'x', 'y', 'z')`, `DELETE FROM a WHERE id = 1`)
				equal(t, m, "id, v, more")
				// The list is another, while weir runs and while it is away.
				for i, list := range []string{"a", "a (id, v, more)", "a (secret, id, v, more)", "a"} {
					if i == 2 {
						m.stop()
					}
					src.exec(t, `ALTER PUBLICATION p SET TABLE `+list, `UPDATE a SET v = v || 'x', secret = 'u' WHERE id % 5 = 0`)
					if i == 2 {
						m.start()
					}
					equal(t, m, "id, v, more")
				}
				src.exec(t, `ALTER TABLE a DROP COLUMN secret`, `UPDATE a SET more = 'n' WHERE id % 7 = 0`)
				equal(t, m, "id, v, more")
				src.exec(t, `ALTER TABLE a ADD COLUMN secret int DEFAULT 5`, `UPDATE a SET more = 'o' WHERE id % 11 = 0`)
				equal(t, m, "id, v, more")
			})
		}
		t.Run("a list that lacks one", func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, secret, "CREATE PUBLICATION p FOR TABLE a (id, v, more)")
			m := newMirror(t, src, dst, "public.*", append(given, "--exclude-column", "public.a.secret")...)
			m.start()
			m.caughtUp()
			m.stop()
			m.server()
			m.caughtUp()
			src.exec(t, `ALTER TABLE a ADD COLUMN fresh int DEFAULT 7`, `UPDATE a SET fresh = id WHERE id % 2 = 0`)
			if e := m.failsWith("W1007"); !strings.Contains(e.Message, "leaves out columns of public.a: fresh") {
				t.Errorf("it says %+v", e)
			}
			src.exec(t, `ALTER PUBLICATION p SET TABLE a (id, v, more, fresh)`, `UPDATE a SET v = 'last' WHERE id = 3`)
			m.mustCLI("pipelines", "resume", m.name)
			m.caughtUp()
			equal(t, m, "id, v, more, fresh")
		})
	})
}

// TestDryRunTellsWhatARunRefuses: what stops the real run is fatal in the plan.
func TestDryRunTellsWhatARunRefuses(t *testing.T) {
	refused := func(t *testing.T, m *mirror, says string) {
		t.Helper()
		out, errOut, code := m.cli(append([]string{"mirror", m.src.url, m.dst.url, "--name", m.name, "--dry-run"}, m.args...)...)
		if code != 2 || !strings.Contains(out+errOut, says) {
			t.Errorf("the dry run: exit code %d, want one that says %q\n%s%s", code, says, out, errOut)
		}
		m.start()
		if err := m.wait(waitLimit); err == nil || !strings.Contains(m.log(), says) {
			t.Errorf("the run: %v\n%s", err, m.logTail(10))
		}
	}

	t.Run("a publication that lacks a table", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, twoTables, `CREATE PUBLICATION p FOR TABLE a`)
		refused(t, newMirror(t, src, dst, "public.*", "--set", "publication.name=p"), "does not hold public.b")
	})

	t.Run("a filter that no publication takes", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, twoTables, `CREATE TABLE "c.d"(id int PRIMARY KEY)`)
		m := newMirror(t, src, dst, "public.*", "--filter", "public.a: now() > now()")
		refused(t, m, "mutable functions are not allowed")
		if out, _, _ := m.cli("mirror", src.url, dst.url, "--name", m.name, "--dry-run", "-o", "json"); strings.Count(out, `"public.\"c.d\""`) < 2 {
			t.Errorf("the plan does not quote a target's name as its source's:\n%s", out)
		}
	})

	t.Run("a target that others have filled", func(t *testing.T) {
		m := live(t)
		refused(t, newMirror(t, m.src, m.dst, "public.*"), "already holds rows")
		// The mirror itself has begun.
		m.stop()
		if out, errOut, code := m.cli(append([]string{"mirror", m.src.url, m.dst.url, "--name", m.name, "--dry-run"}, m.args...)...); code != 0 {
			t.Errorf("a dry run of a mirror that has begun: exit code %d\n%s%s", code, out, errOut)
		}
	})

	t.Run("a name that no pipeline can have", func(t *testing.T) {
		src, dst := pair(t, 15, 15)
		src.exec(t, twoTables)
		m := newMirror(t, src, dst, "public.*")
		m.name = "My mirror"
		refused(t, m, "W6001")
	})
}

// TestDoctorWithoutSource: a source that is away does not keep the doctor from the target.
func TestDoctorWithoutSource(t *testing.T) {
	src, dst := pair(t, 15, 15)
	m := newMirror(t, src, dst, "public.*")
	out, errOut, code := m.cli("doctor", strings.Replace(src.url, "/"+src.name, "/nowhere", 1), dst.url)
	if code != 3 || !strings.Contains(out, "the name of the database in the URL") || !strings.Contains(out, "tgt.connect: connected to") || strings.Contains(out, "tgt.empty") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
}

// TestDoctorOfMirror: the doctor looks at the slot of a mirror of the state directory, under its own name and under another.
func TestDoctorOfMirror(t *testing.T) {
	slot := regexp.MustCompile(`(?m)^ +(.) pg\.slot(.*)$`)
	for _, named := range []bool{false, true} {
		for _, shared := range []string{"true", "false"} {
			server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("max_slot_wal_keep_size", "1MB"), testenv.WithSetting("min_wal_size", "32MB"), testenv.WithSetting("max_wal_size", "48MB"))
			src, dst := newDB(t, server, "src"), newDB(t, target(t, 15), "dst")
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY)`)
			m := newMirror(t, src, dst, "public.*", "--set", "slot.shared="+shared)
			args := []string{"doctor", src.url, dst.url, "--tables", "public.*"}
			if named {
				args = append(args, "--name", m.name)
			} else {
				m.name = "mirror_" + src.name
			}
			says := func(want string) {
				t.Helper()
				out, errOut, _ := m.cli(args...)
				got := strings.Join(slot.FindStringSubmatch(out), "|")
				if matched, _ := regexp.MatchString(want, got); !matched {
					t.Errorf("named %v, shared %s: %s, want %s\n%s%s", named, shared, got, want, out, errOut)
				}
			}
			says("✓.*is created at the start")
			m.start()
			m.caughtUp()
			says("✓.*can be read from")
			m.stop()
			says("✓.*can be read from")
			if out, _, _ := newMirror(t, src, dst, "public.*").cli(args...); !strings.Contains(out, "the slot is created at the start") {
				t.Errorf("another state directory: %s", out)
			}
			eventually(t, waitLimit, "the slot is lost", func() (bool, string) {
				src.exec(t, `INSERT INTO a SELECT coalesce(max(id), 0) + 1 FROM a`, `SELECT pg_switch_wal()`, `CHECKPOINT`)
				s := src.one(t, `SELECT wal_status FROM pg_replication_slots`)
				return s == "lost", s
			})
			says("✗.*W1003.*is lost")
		}
	}
}

// TestDefaultsSpeltOut: an option at its default is the definition that was there before, and one part of a dotted name is
// told from the other.
func TestDefaultsSpeltOut(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE SCHEMA "a.b"`, `CREATE TABLE "a.b"."c.d"(id int PRIMARY KEY)`, `INSERT INTO "a.b"."c.d" VALUES (1)`)
	m := newMirror(t, src, dst, "*.*")
	m.start()
	m.caughtUp()
	v, err := m.view()
	if err != nil || len(v.Status.Tables) != 1 || v.Status.Tables[0].Source != `"a.b"."c.d"` {
		t.Errorf("%v %+v", err, v.Status.Tables)
	}
	m.stop()
	m.args = append(m.args, "--set", "snapshot.parallelism=2", "--set", "sink.batch.bytes=8192 kB", "--until-caught-up")
	m.start()
	if err := m.wait(waitLimit); err != nil {
		t.Errorf("%v\n%s", err, m.logTail(10))
	}
	_, errOut, code := m.cli("mirror", src.url, dst.url, "--tables", "a.b.c.d", "--dry-run")
	if code != 2 || !strings.Contains(errOut, `"a.b"."c.d"`) {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
}

// TestPublicationAltered: somebody takes tables out of weir's publication, or has it send less. What was written meanwhile
// is not in the stream, and comes by another copy.
func TestPublicationAltered(t *testing.T) {
	for _, lanes := range []string{"1", "2"} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("lanes %s, weir away %v", lanes, away), func(t *testing.T) {
				t.Parallel()
				m := live(t, "--set", "discovery.interval=300ms", "--set", "sink.lanes="+lanes)
				name := pg.Ident(m.src.one(t, `SELECT pubname FROM pg_publication`))
				for _, sql := range [][]string{
					{`ALTER PUBLICATION ` + name + ` DROP TABLE a`, `INSERT INTO a VALUES (7000, 'unseen')`, `UPDATE a SET v = 'unseen' WHERE id < 5`},
					{`ALTER PUBLICATION ` + name + ` SET (publish = 'insert')`, `UPDATE b SET v = 'unseen' WHERE id < 5`, `DELETE FROM a WHERE id = 10`},
				} {
					if away {
						m.kill()
					}
					m.src.exec(t, sql...)
					if away {
						m.start()
					}
					eventually(t, waitLimit, "the publication is mended", func() (bool, string) {
						got := m.src.one(t, `SELECT (SELECT count(*) FROM pg_publication_rel) || ' ' || pubupdate FROM pg_publication`)
						return got == "2 true", got
					})
					m.src.exec(t, `INSERT INTO a SELECT max(id) + 1, 'seen' FROM a`, `DELETE FROM b WHERE id = (SELECT max(id) FROM b)`)
					m.caughtUp()
					requireEqual(t, m.src, m.dst)
				}
				requireConsistent(t, m)
			})
		}
	}
}

// TestRemoveAndAdd: a table is removed and added again before the mirror has let go of it for good.
func TestRemoveAndAdd(t *testing.T) {
	m := live(t)
	m.stop()
	m.server()
	m.caughtUp()
	d := startProgram(t, m.src, func(n int) string {
		return fmt.Sprintf(`INSERT INTO a VALUES (%d, 'more'); UPDATE b SET v = 'x%d' WHERE id = %d`, 100000+n, n, n%500)
	}, time.Millisecond)
	for i := range 6 {
		m.mustCLI("pipelines", "pause", m.name, "--wait")
		m.mustCLI("pipelines", "tables", "remove", m.name, "public.a", "--yes")
		d.more(t, 50)
		m.mustCLI("pipelines", "resume", m.name)
		<-time.After(time.Duration(i) * 200 * time.Millisecond)
		m.mustCLI("pipelines", "tables", "add", m.name, "public.a")
		d.more(t, 50)
	}
	d.stop(t)
	m.caughtUp()
	requireEqual(t, m.src, m.dst)
	requireConsistent(t, m)
}
