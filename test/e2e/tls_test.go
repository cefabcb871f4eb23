package e2e

import (
	"testing"

	testenv "github.com/weirstream/weir/test/env"
)

// TestTLS mirrors between servers that let nobody in without TLS and a SCRAM password: all kinds of connections that weir
// opens, the stream's own way of reading its socket among them, with more data waiting than fits into any buffer.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, sv := range []testenv.Version{12, 15} {
		t.Run(sv.String(), func(t *testing.T) {
			secured := []testenv.Option{testenv.FsyncOff(), testenv.WithTLS(), testenv.WithSuperuserPassword("pa ss'word")}
			src := newDB(t, testenv.Postgres(t, sv, secured...), "src")
			dst := newDB(t, testenv.Postgres(t, 15, secured...), "dst")
			src.exec(t, twoTables, `CREATE TABLE big(id int PRIMARY KEY, v text)`)
			m := newMirror(t, src, dst, "public.*")
			m.start()
			m.caughtUp()
			src.exec(t, `INSERT INTO big SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 40000) i`,
				`UPDATE a SET v = v || 'x'`, `UPDATE big SET v = 'y' WHERE id % 7 = 0`, `DELETE FROM b WHERE id < 10`)
			m.caughtUp()
			requireEqual(t, src, dst)
			for _, d := range []db{src, dst} {
				if open := d.query(t, `SELECT a.application_name FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.application_name LIKE 'weir%' AND NOT s.ssl`); len(open) > 0 {
					t.Errorf("not encrypted: %v", open)
				}
			}
			m.kill()
			src.exec(t, `INSERT INTO a SELECT i, 'while away' FROM generate_series(5000, 9000) i`)
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
		})
	}
}
