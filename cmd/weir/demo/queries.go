package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/examples/orders"
	"github.com/weirstream/weir/internal/cli"
)

const (
	queriesFor = 5 * time.Second       // how long orders and payments come
	buyPeriod  = 20 * time.Millisecond // between two of them
)

// reportSQL is the same sums by two tables of the report; one statement reads them at one moment.
const reportSQL = `SELECT coalesce((SELECT concat_ws(' ', orders, ordered, paid) FROM sales), 'nothing'),
	(SELECT coalesce(concat_ws(' ', sum(orders), sum(ordered), sum(paid)), 'nothing') FROM customer_totals)`

// queries shows examples/orders: orders of one database and payments of another, joined and added up in a third.
func (s *story) queries(ctx context.Context) (err error) {
	shop, bank, report := s.place.source.URL("orders_shop"), s.place.source.URL("orders_bank"), s.place.target.URL("orders_report")
	for _, d := range []struct{ server, name, url, file string }{
		{s.place.source.URL("postgres"), "orders_shop", shop, "shop"},
		{s.place.source.URL("postgres"), "orders_bank", bank, "bank"},
		{s.place.target.URL("postgres"), "orders_report", report, "report"},
	} {
		if err := createDatabase(ctx, d.server, d.name); err != nil {
			return err
		}
		if err := execute(ctx, d.url, orders.SQL(d.file)); err != nil {
			return fmt.Errorf("build database %s: %w", d.name, err)
		}
	}
	s.say("queries: orders and customers of one database, payments of another, joined and added up in a third (examples/orders)")
	dir := filepath.Join(s.place.dir, "queries")
	m := &mirror{env: s.env, program: s.Program, dir: dir, httpAddr: s.HTTPAddr, keep: s.place.keep, run: "orders.sql",
		environ: []string{"SHOP_URL=" + shop, "BANK_URL=" + bank, "REPORT_URL=" + report}}
	if err := m.open(); err != nil {
		return errors.Join(err, m.close())
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := os.WriteFile(filepath.Join(dir, m.run), []byte(orders.SQL("orders")), 0o644); err != nil {
		return err
	}
	s.say("$ weir run orders.sql --state %s", m.state())
	if err := m.start(); err != nil {
		return err
	}
	if err := s.reported(ctx, m, shop, bank, report); err != nil {
		return err
	}
	s.say("report: psql '%s' -c 'TABLE top_products ORDER BY place'", report)
	looks, different, err := s.trade(ctx, m, shop, bank, report)
	if err != nil {
		return err
	}
	if err := s.reported(ctx, m, shop, bank, report); err != nil {
		return err
	}
	if err := s.topProducts(ctx, report); err != nil {
		return err
	}
	s.say("a reader looked %d times and saw %d different states: totals of the customers = sales, never off; weir was killed once meanwhile", looks, different)
	if looks == 0 || different < 2 {
		return fmt.Errorf("the reader looked %d times and saw the report move %d times: that proves nothing", looks, different)
	}
	s.say("the report is what both databases say: nothing lost, nothing doubled")
	stopping, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return m.stop(stopping)
}

func execute(ctx context.Context, url, sql string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// trade has orders and payments come, looks at the report meanwhile, and kills weir once.
func (s *story) trade(ctx context.Context, m *mirror, shop, bank, report string) (looks, different int64, err error) {
	g, ctx := errgroup.WithContext(ctx)
	open, end := context.WithCancel(ctx)
	defer end()
	var bought atomic.Int64
	g.Go(func() error {
		for n := 0; open.Err() == nil; n++ {
			if err := execute(ctx, shop, fmt.Sprintf(`INSERT INTO orders (customer, product, amount) VALUES (%d, 'product %d', %d.25);
				UPDATE orders SET amount = amount + 1 WHERE id = %d; DELETE FROM orders WHERE id = %d`, 1+n%50, n%12, 5+n%80, 1+n%900, 900-n%400)); err != nil {
				return fmt.Errorf("order: %w", err)
			}
			if err := execute(ctx, bank, fmt.Sprintf(`INSERT INTO payments (order_id, amount) VALUES (%d, 3.75)`, 1+n%1000)); err != nil {
				return fmt.Errorf("pay: %w", err)
			}
			bought.Add(1)
			_ = s.env.Clock.Sleep(open, buyPeriod) // its end is seen by the loop
		}
		return nil
	})
	g.Go(func() (err error) {
		conn, err := pgx.Connect(ctx, report)
		if err != nil {
			return fmt.Errorf("look at the report: %w", err)
		}
		defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
		last := ""
		for open.Err() == nil {
			var sales, customers string
			if err := conn.QueryRow(ctx, reportSQL).Scan(&sales, &customers); err != nil {
				return fmt.Errorf("look at the report: %w", err)
			}
			looks++
			if sales != customers {
				return fmt.Errorf("%w: look %d: sales %s, customers %s", errUnbalanced, looks, sales, customers)
			}
			if sales != last {
				last = sales
				different++
			}
			_ = s.env.Clock.Sleep(open, buyPeriod)
		}
		return nil
	})
	g.Go(func() error {
		defer end()
		if err := s.env.Clock.Sleep(ctx, queriesFor/2); err != nil {
			return err
		}
		pid, before := m.process.Pid, bought.Load()
		if err := m.kill(); err != nil {
			return err
		}
		s.say("kill -9 %d: weir is dead; orders and payments go on", pid)
		if err := s.env.Clock.Sleep(ctx, deadPeriod/2); err != nil {
			return err
		}
		s.say("$ weir run orders.sql: the same command again; %s orders and payments came meanwhile", cli.Count(bought.Load()-before))
		if err := m.start(); err != nil {
			return err
		}
		return s.env.Clock.Sleep(ctx, queriesFor/2)
	})
	err = g.Wait()
	return looks, different, err
}

// reported waits until the report is what both databases say.
func (s *story) reported(ctx context.Context, m *mirror, shop, bank, report string) error {
	ask := func(url, sql string) (answer string, err error) {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
		return answer, conn.QueryRow(ctx, sql).Scan(&answer)
	}
	began := s.env.Clock.Now()
	for {
		if err := m.failed(); err != nil {
			return err
		}
		ordered, err := ask(shop, "SELECT concat_ws(' ', count(*), sum(amount)) FROM orders")
		if err != nil {
			return err
		}
		ids, err := ask(shop, "SELECT string_agg(id::text, ',') FROM orders")
		if err != nil {
			return err
		}
		paid, err := ask(bank, "SELECT sum(amount)::text FROM payments WHERE order_id IN ("+ids+")")
		if err != nil {
			return err
		}
		got, err := ask(report, "SELECT coalesce((SELECT concat_ws(' ', orders, ordered, paid) FROM sales), 'nothing')")
		if err != nil {
			return err
		}
		if got == ordered+" "+paid {
			return nil
		}
		if s.env.Clock.Now().Sub(began) > waitLimit {
			return fmt.Errorf("waited %s in vain for the report: it says %s, the databases %s %s; weir said\n%s", cli.Took(waitLimit), got, ordered, paid, m.logTail())
		}
		if err := s.env.Clock.Sleep(ctx, tickPeriod); err != nil {
			return err
		}
	}
}

// topProducts shows the report's smallest table.
func (s *story) topProducts(ctx context.Context, report string) (err error) {
	conn, err := pgx.Connect(ctx, report)
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	rows, err := conn.Query(ctx, "SELECT place, product, orders, amount::text FROM top_products ORDER BY place")
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	table := cli.Table{Head: []string{"        PLACE", "PRODUCT", "ORDERS", "AMOUNT"}, Right: []bool{false, false, true, true}}
	for rows.Next() {
		var place, n int64
		var product, amount string
		if err := rows.Scan(&place, &product, &n, &amount); err != nil {
			return fmt.Errorf("read the report: %w", err)
		}
		table.Rows = append(table.Rows, []string{fmt.Sprintf("        %d", place), product, fmt.Sprint(n), amount})
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	s.Say("%s", strings.TrimRight(table.String(), "\n"))
	return nil
}
