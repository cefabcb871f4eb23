package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var schemaSQL string

//go:embed keys.sql
var keysSQL string

// database is the name of the shop's database on both servers.
const database = "shop"

// sizes are the numbers of rows that the shop opens with.
type sizes struct{ customers, products, orders int }

// sizesFor spreads about the wanted number of rows over the tables as in a shop: an order has 2.5 items and a payment.
func sizesFor(rows int) sizes {
	orders := max(rows/5, 40)
	return sizes{customers: max(orders/4, 10), products: max(orders/40, 10), orders: orders}
}

// buildShop creates the shop in an empty database. The rows are functions of their numbers, so that every shop of one
// size is the same.
func buildShop(ctx context.Context, url string, n sizes) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("build the shop: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	steps := []string{
		schemaSQL,
		fmt.Sprintf(`INSERT INTO customers SELECT i, 'c' || i || '@example.com', 'Customer ' || i,
			jsonb_build_object('city', (ARRAY['Oslo','Lima','Kyōto','Łódź','Accra'])[1 + i %% 5], 'zip', lpad((i * 7919 %% 100000)::text, 5, '0')),
			CASE i %% 4 WHEN 0 THEN '{}' WHEN 1 THEN '{new}' WHEN 2 THEN '{news,"big orders"}' ELSE ARRAY['vip', NULL] END,
			timestamptz '2024-01-01 00:00:00+00' + i * interval '97 seconds'
			FROM generate_series(1, %d) i`, n.customers),
		fmt.Sprintf(`INSERT INTO products SELECT i, 'SKU-' || lpad(i::text, 6, '0'), 'Product ' || md5(i::text), (100 + i * 37 %% 9000) / 100.0,
			jsonb_build_object('colour', (ARRAY['red','green','blue'])[1 + i %% 3], 'weight_g', i * 13 %% 5000, 'text', repeat('x', i %% 300)),
			ARRAY[i %% 40, i %% 30, i %% 20]
			FROM generate_series(1, %d) i`, n.products),
		fmt.Sprintf(`CREATE TEMPORARY TABLE lines AS SELECT o AS order_id, l AS line, 1 + (o * 31 + l * 17) %% %d AS product_id,
			1 + (o + l) %% 3 AS quantity, (99 + (o * 7 + l * 1009) %% 20000) / 100.0 AS price
			FROM generate_series(1, %d) o, generate_series(1, 1 + o %% 4) l`, n.products, n.orders),
		fmt.Sprintf(`INSERT INTO orders SELECT order_id, 1 + order_id %% %d, (enum_range(NULL::order_status))[1 + order_id %% 6], sum(quantity * price),
			CASE WHEN order_id %% 10 = 0 THEN 'leave it at the door, ' || md5(order_id::text) END,
			timestamptz '2024-06-01 00:00:00+00' + order_id * interval '61.25 seconds'
			FROM lines GROUP BY order_id ORDER BY order_id`, n.customers),
		`INSERT INTO order_items SELECT order_id, line, product_id, quantity, price FROM lines ORDER BY order_id, line`,
		`INSERT INTO payments SELECT id, id, total, (ARRAY['card','invoice','voucher'])[1 + id % 3], placed_at + interval '5 minutes' FROM orders ORDER BY id`,
		fmt.Sprintf(`INSERT INTO sessions SELECT 1 + i / 3, 'browser ' || i %% 7, ARRAY['/', '/cart', '/p/' || i %% 9], timestamptz '2024-07-01 00:00:00+00' + i / 2 * interval '1 second'
			FROM generate_series(1, %d) i`, n.customers),
		fmt.Sprintf(`INSERT INTO carts (customer_id, contents) SELECT i, '[]' FROM generate_series(1, %d) i`, n.products),
		keysSQL,
	}
	for _, sql := range steps {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("build the shop: %w\n%s", err, sql)
		}
	}
	return nil
}

// createDatabase makes an empty database on a server, and no more.
func createDatabase(ctx context.Context, url, name string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}
