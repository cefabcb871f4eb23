package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shop is the database of the examples, and where their files find it.
func shop(t *testing.T) (src, dst db, m *mirror) {
	t.Helper()
	src, dst = pair(t, 15, 15)
	sql, err := os.ReadFile(filepath.Join("..", "..", "examples", "mirror", "shop.sql"))
	if err != nil {
		t.Fatal(err)
	}
	src.exec(t, string(sql))
	m = newMirror(t, src, dst, "")
	m.env = []string{"SHOP_URL=" + src.url, "COPY_URL=" + dst.url}
	return src, dst, m
}

// TestExampleMirror runs examples/mirror as its README says, and kills weir once.
func TestExampleMirror(t *testing.T) {
	src, dst, m := shop(t)
	dir := filepath.Join("..", "..", "examples", "mirror")
	start := func() {
		m.run("run", filepath.Join(dir, "mirror.sql"), "--state", m.state, "--http-addr", "127.0.0.1:0")
	}
	digest := func(d db, sql string) string {
		return d.query(t, `SELECT count(*) || ' ' || coalesce(md5(string_agg(s::text, '|' ORDER BY s::text)), '') FROM (`+sql+`) s`)[0][0]
	}
	same := func(what string) {
		t.Helper()
		for _, x := range [][3]string{
			{"product", `SELECT * FROM product`, `SELECT * FROM mirror.product`},
			{"orders", `SELECT * FROM orders WHERE region = 'eu'`, `SELECT * FROM mirror.orders`},
			{"line", `SELECT * FROM line`, `SELECT * FROM mirror.line`},
			{"crm_person", `SELECT id, name FROM crm.person`, `SELECT * FROM mirror.crm_person`},
		} {
			eventually(t, 30*time.Second, what+": "+x[0], func() (bool, string) {
				if len(dst.query(t, `SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'mirror' AND relname = '`+x[0]+`'`)) == 0 {
					return false, "the target has no such table"
				}
				want, got := digest(src, x[1]), digest(dst, x[2])
				return want == got, "source " + want + ", target " + got
			})
		}
	}
	start()
	same("copied")
	src.exec(t, `INSERT INTO orders(region) VALUES ('eu'), ('us')`, `UPDATE orders SET region = 'eu' WHERE id = 3`,
		`UPDATE crm.person SET phone = NULL, name = upper(name) WHERE id < 10`)
	same("followed")
	m.kill()
	src.exec(t, `UPDATE product SET price = price + 1`, `UPDATE orders SET state = 'paid' WHERE id % 7 = 0`, `DELETE FROM line WHERE n = 5`)
	start()
	same("after a crash")
	if len(dst.query(t, `SELECT FROM pg_class WHERE relname = 'tmp_import'`)) > 0 {
		t.Error("a table was mirrored that the file leaves out")
	}
}

// TestExampleLanes runs examples/lanes as its README says, and kills weir once.
func TestExampleLanes(t *testing.T) {
	src, dst, m := shop(t)
	start := func() {
		m.run("run", filepath.Join("..", "..", "examples", "lanes", "mirror.sql"), "--state", m.state, "--http-addr", "127.0.0.1:0")
	}
	same := func(what, sql string) {
		t.Helper()
		eventually(t, 30*time.Second, what, func() (bool, string) {
			if len(dst.query(t, `SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'lanes' AND relname = 'line'`)) == 0 {
				return false, "the target has no tables yet"
			}
			want, got := src.one(t, fmt.Sprintf(sql, "public")), dst.one(t, fmt.Sprintf(sql, "lanes"))
			return want == got, "source " + want + ", target " + got
		})
	}
	const sums = `SELECT (SELECT count(*) || ' ' || sum(n) FROM %[1]s.line) || ' ' || (SELECT count(*) || ' ' || count(*) FILTER (WHERE state = 'paid') FROM %[1]s.orders) || ' ' || (SELECT sum(price) FROM %[1]s.product)`
	start()
	same("copied", sums)
	m.kill()
	src.exec(t, `UPDATE orders SET state = 'paid' WHERE id % 7 = 0`, `DELETE FROM line WHERE n = 5`, `UPDATE product SET price = price + 1`)
	start()
	same("after a crash", sums)
	if got := dst.one(t, `SELECT count(*) || ' ' || min(checkpoint) FROM "_weir"."ledger"`); !strings.HasPrefix(got, "2 ") || got == "2 0" {
		t.Errorf("ledger: %s", got)
	}
}
