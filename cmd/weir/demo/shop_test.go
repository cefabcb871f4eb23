package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/weirstream/weir/internal/scratch"
	testenv "github.com/weirstream/weir/test/env"
)

// newShop builds a shop of 2,000 rows in a database of its own.
func newShop(t *testing.T) (url string, n sizes) {
	t.Helper()
	s := testenv.Shared(t, 15, testenv.FsyncOff())
	url, n = s.CreateDatabase(t, "shop"), sizesFor(2000)
	if err := buildShop(t.Context(), url, n); err != nil {
		t.Fatal(err)
	}
	return url, n
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func TestScriptIsItsSeed(t *testing.T) {
	write := func(seed uint64, writer int) (all []string, seen map[kind]int) {
		s := &script{rng: seededRand(seed).Stream("writer"), writer: writer, writers: 3, shop: sizesFor(2000)}
		seen = map[kind]int{}
		for i := range 2000 {
			next := s.next
			if i == 1000 {
				next = s.addColumn
			}
			tx := next()
			seen[tx.kind]++
			all = append(all, fmt.Sprint(tx.statements))
		}
		return all, seen
	}
	first, seen := write(7, 0)
	if again, _ := write(7, 0); !slices.Equal(first, again) {
		t.Error("one seed gave two sequences of transactions")
	}
	for name, other := range map[string]func() ([]string, map[kind]int){
		"another seed":   func() ([]string, map[kind]int) { return write(8, 0) },
		"another writer": func() ([]string, map[kind]int) { return write(7, 1) },
	} {
		if all, _ := other(); slices.Equal(first, all) {
			t.Errorf("%s gave the same transactions", name)
		}
	}
	for k := range kinds {
		if seen[k] == 0 {
			t.Errorf("no transaction of kind %d among 2000", k)
		}
	}
}

func TestWritersShareNothing(t *testing.T) {
	for _, n := range []int{10, 11, 12, 1000} {
		owner := map[int]int{}
		for w := range writers {
			s := &script{rng: seededRand(1).Stream("writer"), writer: w, writers: writers}
			for range 20 * n {
				i := s.own(n)
				if before, taken := owner[i]; i < 1 || i > n || taken && before != w {
					t.Fatalf("writer %d of %d draws %d of 1..%d, which is writer %d's", w, writers, i, n, before)
				}
				owner[i] = w
			}
		}
		if len(owner) != n {
			t.Errorf("%d of %d numbers are drawn", len(owner), n)
		}
	}
}

func TestOneSeedIsOneShop(t *testing.T) {
	var all [][]digest
	for _, seed := range []uint64{7, 7, 8} {
		url, n := newShop(t)
		conn := connect(t, url)
		s := &script{rng: seededRand(seed).Stream("writer"), writers: 1, shop: n}
		for i := range 500 {
			next := s.next
			if i == 250 {
				next = s.addColumn
			}
			if _, err := apply(t.Context(), conn, next()); err != nil {
				t.Fatal(err)
			}
		}
		d, err := digests(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	same := func(a, b []digest) bool { return slices.EqualFunc(a, b, digest.equal) }
	if !same(all[0], all[1]) {
		t.Errorf("the same transactions made\n%v\nand\n%v", all[0], all[1])
	}
	if same(all[0], all[2]) {
		t.Error("other transactions made the same shop")
	}
}

// TestShopIsAlwaysBalanced lets the reader look at the busy shop itself: what it promises of the target must hold there
// at every moment, or a look would prove nothing.
func TestShopIsAlwaysBalanced(t *testing.T) {
	url, n := newShop(t)
	e := seeded(1)
	tr := &traffic{env: e, url: url, shop: n, rate: 3000}
	rd := &reader{env: e, url: url}
	open, closeShop := context.WithCancel(t.Context())
	defer closeShop()
	var g errgroup.Group
	g.Go(func() error { defer closeShop(); return tr.run(open) })
	g.Go(func() error { defer closeShop(); return rd.run(open) })
	asked := false
	err := scratch.Poll(open, time.Millisecond, func() (bool, error) {
		if !asked && tr.commits.Load() > 500 {
			asked = true
			tr.alter.Store(true)
		}
		return rd.different.Load() >= 8 && tr.commits.Load() >= 1500 && tr.done[cartsEmptied].Load() > 0 && tr.altered.Load(), nil
	})
	closeShop()
	if err := errors.Join(err, g.Wait()); err != nil {
		t.Fatal(err)
	}
	for k := range kinds {
		if tr.done[k].Load() == 0 {
			t.Errorf("no transaction of kind %d was made", k)
		}
	}
	// Not only the sums: each order by itself.
	var orders, off int
	err = connect(t, url).QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE total IS DISTINCT FROM items OR total IS DISTINCT FROM paid) FROM (
		SELECT total, (SELECT sum(quantity * price) FROM order_items WHERE order_id = o.id) AS items,
			(SELECT sum(amount) FROM payments WHERE order_id = o.id) AS paid FROM orders o) x`).Scan(&orders, &off)
	if err != nil || orders == 0 || off > 0 {
		t.Errorf("%d of %d orders are off, error %v", off, orders, err)
	}
}

func TestReaderSeesAPartOfATransaction(t *testing.T) {
	url, _ := newShop(t)
	rd := &reader{env: seeded(1), url: url}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan error, 1)
	go func() { seen <- rd.run(ctx) }()
	if err := scratch.Poll(t.Context(), time.Millisecond, func() (bool, error) { return rd.looks.Load() > 0, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, url).Exec(t.Context(), "DELETE FROM payments WHERE id = 7"); err != nil {
		t.Fatal(err)
	}
	if err := <-seen; !errors.Is(err, errUnbalanced) {
		t.Errorf("error %v, want errUnbalanced", err)
	}
}

func TestRolledBackSavepointsAreNotCounted(t *testing.T) {
	url, n := newShop(t)
	conn := connect(t, url)
	s := &script{rng: seededRand(1).Stream("writer"), writers: 1, shop: n}
	tx := s.placeOrder(1, true)
	var inserts int64
	for _, st := range tx.statements {
		if strings.HasPrefix(st.sql, "INSERT") {
			inserts++
		}
	}
	rows, err := apply(t.Context(), conn, tx)
	if err != nil || rows != inserts-1 {
		t.Errorf("counted %d rows of %d inserts, one of which was rolled back; error %v", rows, inserts, err)
	}
}

func TestCompareFindsEveryDifference(t *testing.T) {
	source, _ := newShop(t)
	for _, c := range []struct{ name, sql, table string }{
		{"nothing", "SELECT 1", ""},
		{"another order of rows", "BEGIN; CREATE TEMPORARY TABLE x AS SELECT * FROM sessions; DELETE FROM sessions; INSERT INTO sessions SELECT * FROM x ORDER BY started_at DESC; COMMIT", ""},
		{"a cent", "UPDATE payments SET amount = amount + 0.01 WHERE id = 3", "payments"},
		{"a row less", "DELETE FROM payments WHERE id = 3", "payments"},
		{"NULL and the empty string", "UPDATE orders SET note = '' WHERE id = 1", "orders"},
		{"an equal row more", "INSERT INTO sessions SELECT * FROM sessions LIMIT 1", "sessions"},
		{"one of two values swapped", "UPDATE order_items SET quantity = line, line = quantity + 10 WHERE order_id = 4", "order_items"},
		{"a column more", "ALTER TABLE carts ADD COLUMN more int", "carts"},
		{"a table less", "DROP TABLE carts", "carts"},
		{"a table more", "CREATE TABLE more (id int)", "more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, _ := newShop(t)
			if _, err := connect(t, target).PgConn().Exec(t.Context(), c.sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			tables, err := compare(t.Context(), source, target)
			if err != nil {
				t.Fatal(err)
			}
			var different []string
			for _, table := range tables {
				if !table.equal() {
					different = append(different, table.name())
				}
			}
			if got := strings.Join(different, " "); got != c.table || len(tables) < 7 {
				t.Errorf("different: %q of %d tables, want %q", got, len(tables), c.table)
			}
		})
	}
}

func TestDirThatIsNotEmptyIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := claim(dir); err != nil {
		t.Error(err)
	}
	if err := claim(dir + "/new"); err != nil {
		t.Error(err)
	}
	if err := claim(dir); err == nil {
		t.Error("a directory that holds something was taken")
	}
}
