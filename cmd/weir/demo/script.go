package demo

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// statement is one SQL statement of a customer.
type statement struct {
	sql  string
	args []any
}

// transaction is what a customer does at once.
type transaction struct {
	kind       kind
	statements []statement
}

// kind names a transaction for the story's summary.
type kind uint8

const (
	orderPlaced    kind = iota // an order with its items and payments
	orderDoubted               // the same, with a savepoint that was rolled back in the middle
	orderExtended              // an item and a payment are added
	orderMoved                 // a new status
	orderCancelled             // an order goes, and its items and payments with it
	customerEdited
	productEdited
	sessionOpened
	sessionMoved
	sessionsEnded
	cartFilled
	cartsEmptied // TRUNCATE
	columnAdded  // ALTER TABLE
	kinds        // how many there are
)

// script invents the transactions of one writer. It only draws from its random stream and never looks at the database,
// so that one seed is one sequence of statements.
//
// A writer has customers and products of its own, those whose number leaves its remainder. So writers never wait for
// each other's rows in a circle, while their transactions do run, and lie in the log, one among the other.
type script struct {
	rng             *rand.Rand
	writer, writers int
	shop            sizes
	n               int
	loyalty         bool // customers have the column that ALTER TABLE has added
}

func (s *script) next() transaction {
	s.n++
	customer := s.own(s.shop.customers)
	// One writer in a while; a table that all of them lock at once would make them wait, not show more.
	if s.writer == 0 && s.n%120 == 0 {
		return transaction{cartsEmptied, []statement{{"TRUNCATE carts", nil}}}
	}
	switch p := s.rng.IntN(100); {
	case p < 45:
		return s.placeOrder(customer, false)
	case p < 50:
		return s.placeOrder(customer, true)
	case p < 55:
		return s.extendOrder(customer)
	case p < 72:
		return transaction{orderMoved, []statement{{
			"UPDATE orders SET status = $2 WHERE id = (SELECT max(id) FROM orders WHERE customer_id = $1)",
			[]any{customer, pick(s, "paid", "packed", "shipped", "delivered", "returned")}}}}
	case p < 77:
		return transaction{orderCancelled, []statement{{
			"DELETE FROM orders WHERE id = (SELECT min(id) FROM orders WHERE customer_id = $1)", []any{customer}}}}
	case p < 84:
		return s.editCustomer(customer)
	case p < 88:
		return transaction{productEdited, []statement{{
			"UPDATE products SET price = $2, sizes = $3, attributes = attributes || $4::jsonb WHERE id = $1",
			[]any{s.own(s.shop.products), s.money(1, 9000), []int32{s.rng.Int32N(50), s.rng.Int32N(50)}, fmt.Sprintf(`{"sold": %d}`, s.n)}}}}
	case p < 93:
		return transaction{sessionOpened, []statement{{
			"INSERT INTO sessions (customer_id, agent, pages, started_at) VALUES ($1, $2, $3, $4)",
			[]any{customer, fmt.Sprintf("browser %d", s.rng.IntN(7)), []string{"/"}, s.now()}}}}
	case p < 95:
		return transaction{sessionMoved, []statement{{
			"UPDATE sessions SET pages = pages || $2::text WHERE customer_id = $1", []any{customer, fmt.Sprintf("/p/%d", s.rng.IntN(99))}}}}
	case p < 96:
		return transaction{sessionsEnded, []statement{{"DELETE FROM sessions WHERE customer_id = $1", []any{customer}}}}
	default:
		return transaction{cartFilled, []statement{{
			"INSERT INTO carts (customer_id, contents) VALUES ($1, $2)", []any{customer, fmt.Sprintf(`[{"product": %d}]`, s.own(s.shop.products))}}}}
	}
}

// item is one line of an order.
type item struct {
	product  int
	quantity int
	cents    int64
}

func (s *script) item() item {
	return item{product: 1 + s.rng.IntN(s.shop.products), quantity: 1 + s.rng.IntN(4), cents: 50 + s.rng.Int64N(20000)}
}

func (s *script) placeOrder(customer int, doubt bool) transaction {
	items := make([]item, 1+s.rng.IntN(4))
	var total int64
	for i := range items {
		items[i] = s.item()
		total += int64(items[i].quantity) * items[i].cents
	}
	t := transaction{kind: orderPlaced}
	var note any
	if s.rng.IntN(5) == 0 {
		note = fmt.Sprintf("gift wrap – №%d", s.n)
	}
	t.add("INSERT INTO orders (customer_id, total, note, placed_at) VALUES ($1, $2, $3, $4)", customer, money(total), note, s.now())
	for i, it := range items {
		t.add(insertItem, i+1, it.product, it.quantity, money(it.cents))
	}
	if doubt {
		// What is undone here is in the log of nobody but the server: a reader must never see it.
		t.kind = orderDoubted
		t.add("SAVEPOINT doubt")
		t.add(insertItem, len(items)+1, 1+s.rng.IntN(s.shop.products), 100, money(99_999))
		t.add("UPDATE orders SET total = total + 99999 WHERE id = currval('orders_id_seq')")
		t.add("ROLLBACK TO SAVEPOINT doubt")
	}
	paid := total
	if s.rng.IntN(4) == 0 && total > 1 { // in two parts
		paid = 1 + s.rng.Int64N(total-1)
	}
	for _, part := range []int64{paid, total - paid} {
		if part > 0 {
			t.add("INSERT INTO payments (order_id, amount, method, paid_at) VALUES (currval('orders_id_seq'), $1, $2, $3)",
				money(part), pick(s, "card", "invoice", "voucher"), s.now())
		}
	}
	return t
}

const insertItem = "INSERT INTO order_items (order_id, line, product_id, quantity, price) VALUES (currval('orders_id_seq'), $1, $2, $3, $4)"

// extendOrder does nothing if the customer has no order: every statement of it selects that order.
func (s *script) extendOrder(customer int) transaction {
	it := s.item()
	more := money(int64(it.quantity) * it.cents)
	t := transaction{kind: orderExtended}
	const last = " WHERE o.id = (SELECT max(id) FROM orders WHERE customer_id = $1)"
	t.add("INSERT INTO order_items (order_id, line, product_id, quantity, price) SELECT o.id, "+
		"(SELECT coalesce(max(line), 0) + 1 FROM order_items WHERE order_id = o.id), $2::bigint, $3::int, $4::numeric FROM orders o"+last,
		customer, it.product, it.quantity, money(it.cents))
	t.add("UPDATE orders o SET total = total + $2"+last, customer, more)
	t.add("INSERT INTO payments (order_id, amount, method, paid_at) SELECT o.id, $2::numeric, 'card', $3::timestamptz FROM orders o"+last, customer, more, s.now())
	return t
}

func (s *script) editCustomer(customer int) transaction {
	t := transaction{kind: customerEdited}
	t.add("UPDATE customers SET name = $2, address = jsonb_set(address, '{street}', to_jsonb($3::text)), tags = $4 WHERE id = $1",
		customer, fmt.Sprintf("Customer %d-%d", customer, s.n), fmt.Sprintf("%d Main St.\n\"rear\"", s.rng.IntN(500)),
		[]string{pick(s, "vip", "new", "it's, {quoted}"), "edited"})
	if s.loyalty {
		t.add("UPDATE customers SET loyalty_points = loyalty_points + $2 WHERE id = $1", customer, s.rng.Int32N(100))
	}
	return t
}

// addColumn is done once, by one writer, when the story says so.
func (s *script) addColumn() transaction {
	s.loyalty = true
	return transaction{columnAdded, []statement{{"ALTER TABLE customers ADD COLUMN loyalty_points integer NOT NULL DEFAULT 0", nil}}}
}

func (t *transaction) add(sql string, args ...any) {
	t.statements = append(t.statements, statement{sql, args})
}

// own draws a number of 1..n that leaves this writer's remainder.
func (s *script) own(n int) int {
	return 1 + s.writer + s.writers*s.rng.IntN((n-1-s.writer)/s.writers+1)
}

func (s *script) money(least, span int64) string { return money(least + s.rng.Int64N(span)) }

// money writes cents as a decimal. Sums are of whole cents, so that they can be compared exactly.
func money(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// now is the shop's own time: a minute further with each transaction.
func (s *script) now() time.Time {
	return time.Date(2025, 1, 1, 9, 0, 0, s.writer*1000, time.UTC).Add(time.Duration(s.n) * time.Minute)
}

func pick(s *script, words ...string) string { return words[s.rng.IntN(len(words))] }
