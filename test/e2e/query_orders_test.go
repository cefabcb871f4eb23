package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	testenv "github.com/weirstream/weir/test/env"
)

// TestExampleOrders runs examples/orders as its README says, and kills weir once.
func TestExampleOrders(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs(filepath.Join("..", "..", "examples", "orders"))
	if err != nil {
		t.Fatal(err)
	}
	from, to := source(t, testenv.Version(15)), target(t, testenv.Version(15))
	dbs := map[string]db{"shop": newDB(t, from, "shop"), "bank": newDB(t, from, "bank"), "report": newDB(t, to, "report")}
	for name, d := range dbs {
		sql, err := os.ReadFile(filepath.Join(dir, name+".sql"))
		if err != nil {
			t.Fatal(err)
		}
		d.exec(t, string(sql))
	}
	shop, bank, report := dbs["shop"], dbs["bank"], dbs["report"]
	q := newQueries(t, "")
	q.name = "orders"
	q.env = []string{"SHOP_URL=" + shop.url, "BANK_URL=" + bank.url, "REPORT_URL=" + report.url}
	start := func() {
		q.run("run", filepath.Join(dir, "orders.sql"), "--state", q.state, "--http-addr", "127.0.0.1:0")
	}
	same := func(what string) {
		t.Helper()
		eventually(t, 30*time.Second, what, func() (bool, string) {
			ordered, paid := shop.one(t, `SELECT count(*) || ' ' || sum(amount) FROM orders`), bank.one(t, `SELECT sum(amount)::text FROM payments`)
			want := ordered + " " + paid
			got := report.one(t, `SELECT coalesce((SELECT concat_ws(' ', orders, ordered, paid) FROM sales), 'nothing')`)
			customers := report.one(t, `SELECT coalesce(concat_ws(' ', sum(orders), sum(ordered), sum(paid)), 'nothing') FROM customer_totals`)
			top := shop.one(t, `SELECT string_agg(concat_ws(':', product, n, amount), ',' ORDER BY amount DESC, product COLLATE "C") FROM (SELECT product, count(*) AS n, sum(amount) AS amount FROM orders GROUP BY 1 ORDER BY 3 DESC, product COLLATE "C" LIMIT 5) x`)
			topGot := report.one(t, `SELECT coalesce(string_agg(concat_ws(':', product, orders, amount), ',' ORDER BY place), '') FROM top_products`)
			return got == want && customers == want && top == topGot, fmt.Sprintf("sources %s\nsales %s\ncustomers %s\ntop %s\nreport %s\n%s", want, got, customers, top, topGot, q.logTail(5))
		})
	}
	start()
	same("the first copy")
	shop.exec(t, `INSERT INTO orders (customer, product, amount) VALUES (7, 'product 3', 1000)`)
	bank.exec(t, `INSERT INTO payments (order_id, amount) VALUES (1001, 400)`)
	same("an order and a payment")
	if got := report.one(t, `SELECT open::text FROM customer_totals WHERE customer = 7`); got == "0.00" {
		t.Errorf("customer 7 owes %s", got)
	}
	q.kill()
	shop.exec(t, `UPDATE orders SET product = 'product 5' WHERE id % 3 = 0`, `DELETE FROM orders WHERE id = 8`)
	bank.exec(t, `DELETE FROM payments WHERE order_id = 8`, `UPDATE payments SET amount = amount + 1 WHERE order_id = 9`)
	start()
	same("after a crash")
	q.stop()
}
