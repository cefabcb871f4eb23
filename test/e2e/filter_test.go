package e2e

import (
	"testing"
	"time"
)

// TestFilterStays: a table keeps its filter when it or the filter's column gets another name, in the stream and in every copy;
// one that gets the name of a filtered table stays without one.
func TestFilterStays(t *testing.T) {
	src, dst := pair(t, 15, 15)
	for _, table := range []string{"t", "other"} {
		src.exec(t, `CREATE TABLE `+table+`(id int PRIMARY KEY, r text, x int); ALTER TABLE `+table+` REPLICA IDENTITY FULL; INSERT INTO `+table+` SELECT i, CASE i % 2 WHEN 0 THEN 'eu' ELSE 'us' END, i FROM generate_series(1, 100) i`)
	}
	m := newMirror(t, src, dst, "public.*", "--filter", "public.t: r = 'eu'", "--set", "on.missing.row=error")
	m.start()
	m.caughtUp()
	m.stop()
	m.server()
	m.caughtUp()
	same := func(filtered, whole, column string) {
		t.Helper()
		m.caughtUp()
		for table, where := range map[string]string{filtered: column + " = 'eu'", whole: "true"} {
			const sum = `md5(coalesce(string_agg(y::text, ',' ORDER BY id), ''))`
			want := src.one(t, `SELECT `+sum+` FROM `+table+` y WHERE `+where)
			eventually(t, waitLimit, table+" is equal", func() (bool, string) {
				got := dst.one(t, `SELECT `+sum+` FROM `+table+` y`)
				return got == want, dst.one(t, `SELECT count(*) FROM `+table)
			})
		}
	}
	write := func(table, column string) {
		t.Helper()
		src.exec(t, `UPDATE `+table+` SET x = -x WHERE id > 50`, `INSERT INTO `+table+`(id, `+column+`, x) SELECT max(id) + 1, 'eu', 1 FROM `+table, `INSERT INTO `+table+`(id, `+column+`, x) SELECT max(id) + 1, 'us', 1 FROM `+table,
			`DELETE FROM `+table+` WHERE id = (SELECT min(id) FROM `+table+`)`)
	}
	write("t", "r")
	same("t", "other", "r")
	src.exec(t, `ALTER TABLE t RENAME TO t_old`)
	write("t_old", "r")
	m.mustCLI("sources", "refresh", "public.t_old", "--yes")
	write("t_old", "r")
	same("t_old", "other", "r")
	src.exec(t, `ALTER TABLE t_old ADD u float DEFAULT random()`) // which has it copied again
	write("t_old", "r")
	same("t_old", "other", "r")
	src.exec(t, `ALTER TABLE other RENAME TO t`)
	write("t", "r")
	m.mustCLI("sources", "refresh", "public.t", "--yes")
	write("t", "r")
	same("t_old", "t", "r")
	src.exec(t, `ALTER TABLE t_old RENAME r TO region`)
	write("t_old", "region")
	m.mustCLI("sources", "refresh", "public.t_old", "--yes")
	write("t_old", "region")
	same("t_old", "t", "region")
	m.kill()
	write("t_old", "region")
	write("t", "r")
	m.server()
	same("t_old", "t", "region")
	requireConsistent(t, m)
	m.cutsOver()
}

// TestRefreshIsKept: a refresh that was taken up is made, also when weir dies right behind the answer.
func TestRefreshIsKept(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE big(id int PRIMARY KEY, v text); INSERT INTO big SELECT i, repeat('x', 50) FROM generate_series(1, 100000) i`, `CREATE TABLE small(id int PRIMARY KEY); INSERT INTO small VALUES (1)`)
	m := newMirror(t, src, dst, "public.*")
	m.start()
	m.caughtUp()
	for i := range 4 {
		dst.exec(t, `DELETE FROM big WHERE id > 99000`, `DELETE FROM small`)
		m.mustCLI("sources", "refresh", "public.*", "--yes")
		<-time.After(time.Duration(i) * 100 * time.Millisecond)
		m.kill()
		m.start()
		m.caughtUp()
		eventually(t, waitLimit, "the rows are back", func() (bool, string) {
			got := dst.one(t, `SELECT (SELECT count(*) FROM big) || ' ' || (SELECT count(*) FROM small)`)
			return got == "100000 1", got
		})
	}
	requireEqual(t, src, dst)
}

// TestCutoverSequenceOfNobody: a sequence that no table draws from is made by the cut-over itself, which is not mistaken for
// somebody who writes; and nobody waits for a heartbeat.
func TestCutoverSequenceOfNobody(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables, `CREATE SEQUENCE hibernate_sequence`, `SELECT nextval('hibernate_sequence')`)
	m := served(t, src, dst, "--set", "heartbeat.interval=1h")
	src.exec(t, `ALTER DATABASE `+src.name+` SET default_transaction_read_only = on`)
	src.srv.Exec(t, "postgres", `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+src.name+`' AND application_name NOT LIKE 'weir%'`)
	began := time.Now()
	out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes", "--timeout", "60s")
	if code != 0 {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := dst.one(t, `SELECT last_value FROM hibernate_sequence`); got != "1" {
		t.Errorf("the sequence stands at %s", got)
	}
}
