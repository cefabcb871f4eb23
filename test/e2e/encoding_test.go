package e2e

import (
	"strings"
	"testing"
)

// TestTextThatIsNotUTF8: a database in SQL_ASCII holds bytes that its server can send to nobody who asks for UTF-8. The
// mirror stops and says so; a new copy works when they are gone.
func TestTextThatIsNotUTF8(t *testing.T) {
	for name, statements := range map[string][2]string{
		"in the copy":   {`INSERT INTO a VALUES (2, 'raw' || chr(255))`, ``},
		"in the stream": {``, `INSERT INTO a VALUES (2, 'raw' || chr(255))`},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			raw := src.name + "_raw"
			src.srv.Exec(t, "postgres", `CREATE DATABASE `+raw+` ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
			t.Cleanup(func() { src.srv.Exec(t, "postgres", `DROP DATABASE IF EXISTS `+raw+` WITH (FORCE)`) })
			src.url, src.name = strings.Replace(src.url, src.name, raw, 1), raw
			src.exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a VALUES (1, 'plain')`)
			if statements[0] != "" {
				src.exec(t, statements[0])
			}
			m := newMirror(t, src, dst, "public.*")
			m.start()
			if statements[1] != "" {
				m.caughtUp()
				src.exec(t, statements[1])
			}
			if err := m.wait(waitLimit); err == nil || !strings.Contains(m.log(), "W1014") || !strings.Contains(m.log(), "not UTF-8") || statements[0] != "" && !strings.Contains(m.log(), "a was copied") {
				t.Fatalf("%v\n%s", err, m.logTail(20))
			}
			m.server()
			src.exec(t, `UPDATE a SET v = 'mended' WHERE id = 2`)
			m.mustCLI("pipelines", "delete", m.name, "--yes", "--wait")
			m.stop()
			dst.exec(t, `DROP TABLE IF EXISTS a`)
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}

// TestTargetTakesNoWrites: a target that is read-only for a while is told as that, and the mirror goes on by itself.
func TestTargetTakesNoWrites(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := newMirror(t, src, dst, "public.*")
	m.start()
	m.caughtUp()
	m.stop()
	m.server()
	m.caughtUp()
	const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`
	dst.srv.Exec(t, "postgres", `ALTER DATABASE `+dst.name+` SET default_transaction_read_only = on`, end+dst.name+`'`)
	src.exec(t, `INSERT INTO a VALUES (5000, 'x')`)
	eventually(t, waitLimit, "the pipeline tells why it waits", func() (bool, string) {
		v, err := m.view()
		if err != nil || v.Status.Error == nil {
			return false, describe(v.Status)
		}
		return v.Status.Error.Code == "W4001" && strings.Contains(v.Status.Error.Hint, "takes no writes"), v.Status.Error.Message + v.Status.Error.Hint
	})
	dst.srv.Exec(t, "postgres", `ALTER DATABASE `+dst.name+` RESET default_transaction_read_only`, end+dst.name+`'`)
	m.caughtUp()
	requireEqual(t, src, dst)
}
