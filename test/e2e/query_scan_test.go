package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	testenv "github.com/weirstream/weir/test/env"
)

// TestQueryPostgresScan: tables of a database are read once, joined with each other, written into another, and weir ends.
func TestQueryPostgresScan(t *testing.T) {
	t.Parallel()
	src, dst := newDB(t, source(t, testenv.Version(15)), "shop"), newDB(t, target(t, testenv.Version(15)), "report")
	src.exec(t, `CREATE TABLE customers (id int PRIMARY KEY, name varchar(20))`, `CREATE TABLE orders (id int, customer int, amount numeric(10, 2))`,
		`INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 3) i`, `INSERT INTO orders SELECT i, 1 + i % 3, i * 1.5 FROM generate_series(1, 10000) i`)
	dst.exec(t, `CREATE TABLE totals (name text PRIMARY KEY, orders bigint, amount numeric(20, 2))`, `INSERT INTO totals VALUES ('other', 1, 1), ('customer 1', 1, 1)`)
	with := func(url, table string) string {
		return fmt.Sprintf("WITH ('connector' = 'jdbc', 'url' = '%s', 'table-name' = '%s', 'lookup.cache' = 'PARTIAL', 'scan.fetch-size' = '100')", url, table)
	}
	q := newQueries(t, `
CREATE TABLE customers (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED) `+with(src.url, "customers")+`;
CREATE TABLE orders (id INT, customer INT, amount DECIMAL(10, 2)) `+with(src.url, "public.orders")+`;
CREATE TABLE totals (name STRING, orders BIGINT, amount DECIMAL(20, 2), PRIMARY KEY (name) NOT ENFORCED) `+with(dst.url, "totals")+`;
INSERT INTO totals SELECT c.name, COUNT(*), CAST(SUM(o.amount) AS DECIMAL(20, 2)) FROM orders o JOIN customers c ON c.id = o.customer GROUP BY c.name;
`)
	q.begin()
	q.ends()
	var got []string
	for _, r := range dst.query(t, `SELECT name, orders::text, amount::text FROM totals ORDER BY name COLLATE "C"`) {
		got = append(got, strings.Join(r, " "))
	}
	want := []string{}
	for _, r := range src.query(t, `SELECT name, count(*)::text, sum(amount)::text FROM orders o JOIN customers c ON c.id = o.customer GROUP BY name ORDER BY name COLLATE "C"`) {
		want = append(want, strings.Join(r, " "))
	}
	if want = append(want, "other 1 1.00"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
