package validate

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	testenv "github.com/weirstream/weir/test/env"
)

func TestMain(m *testing.M) { testenv.Main(m, testenv.CheckLeaks()) }

func TestSet(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	s := NewSet()
	for id := range int64(7) {
		s.Begin(id, at(0))
	}
	for id := range int64(6) { // 6 was never acknowledged
		s.Acked(id, at(1))
	}
	s.Look([]int64{0, 2, 5}, at(2)) // 1 comes late
	s.Look([]int64{0, 1, 3, 3, 5}, at(4))
	s.Look([]int64{0, 1, 3, 5, 99}, at(6))
	r := s.Result()
	if !slices.Equal(r.Lost, []int64{2, 4}) || !slices.Equal(r.Duplicated, []int64{3}) || !slices.Equal(r.Unexpected, []int64{99}) {
		t.Errorf("%+v", r)
	}
	if r.Stable != 4 || r.Stale != 2 || r.StaleMost != time.Second || r.Looks != 3 || r.Err() == nil {
		t.Errorf("%+v", r)
	}
	fine := NewSet()
	fine.Begin(1, at(0))
	fine.Acked(1, at(1))
	fine.Begin(2, at(0))
	fine.Look([]int64{1}, at(2))
	if err := fine.Result().Err(); err != nil {
		t.Error(err)
	}
}

func TestSequences(t *testing.T) {
	for name, c := range map[string]struct {
		looks []map[int64]int64
		want  string
	}{
		"fine":     {looks: []map[int64]int64{{}, {1: 1}, {1: 3}}},
		"back":     {looks: []map[int64]int64{{1: 2}, {1: 1}}, want: "back"},
		"gone":     {looks: []map[int64]int64{{1: 2}, {}}, want: "gone"},
		"made up":  {looks: []map[int64]int64{{1: 4}}, want: "last that was written"},
		"too late": {looks: []map[int64]int64{{1: 2}}, want: "2 of 3"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSequences()
			for n := range int64(3) {
				s.Write(1, n+1)
			}
			for _, l := range c.looks {
				s.Look(l)
			}
			err := s.Complete()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	server := testenv.Shared(t, 15, testenv.FsyncOff())
	a, b := server.CreateDatabase(t, "a"), server.CreateDatabase(t, "b")
	for _, url := range []string{a, b} {
		server.Exec(t, testenv.DatabaseOf(t, url),
			`CREATE TABLE "Odd ""name" (id int PRIMARY KEY, f float8, t timestamptz, v text)`,
			`INSERT INTO "Odd ""name" SELECT i, i / 3.0, to_timestamp(i), nullif('v' || i, 'v7') FROM generate_series(1, 100) AS i`)
	}
	server.Exec(t, testenv.DatabaseOf(t, a), `CREATE TABLE loose (n int, v text)`, `INSERT INTO loose VALUES (1, 'x'), (1, 'x'), (2, NULL)`)
	server.Exec(t, testenv.DatabaseOf(t, b), `CREATE TABLE loose (v text, n int)`, `INSERT INTO loose VALUES (NULL, 2), ('x', 1), ('x', 1)`)
	all := Same(`public.Odd "name`, "public.loose")
	if err := Equal(t.Context(), a, b, all...); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, testenv.DatabaseOf(t, b), `UPDATE "Odd ""name" SET v = '' WHERE id = 7`, `DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose WHERE n = 1)`)
	err := Equal(t.Context(), a, b, all...)
	if err == nil {
		t.Fatal("nothing was noticed")
	}
	for _, want := range []string{`(2.3333333333333335,7,\"1970-01-01 00:00:07+00\",)`, `public.loose has 3 rows and public.loose 2`, `(1,x)`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not tell of %s", err, want)
		}
	}
	if err := Equal(t.Context(), a, b, Pair{"public.loose", "public.none"}); err == nil {
		t.Error("a table that is not there equals one")
	}
}

func TestBank(t *testing.T) {
	server := testenv.Shared(t, 15, testenv.FsyncOff())
	url := server.CreateDatabase(t, "bank")
	db := testenv.DatabaseOf(t, url)
	server.Exec(t, db, "CREATE TABLE a (id int, balance int)", "CREATE TABLE b (id int, balance int)", "INSERT INTO a VALUES (1, 70)", "INSERT INTO b VALUES (1, 30)")
	bank := Bank{Tables: []string{"public.a", "public.b"}, Column: "balance", Total: 100}
	type seen struct {
		looks int
		err   error
	}
	watch := func(ctx context.Context) chan seen {
		out := make(chan seen, 1)
		go func() {
			looks, err := bank.Watch(ctx, url)
			out <- seen{looks, err}
		}()
		return out
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := watch(ctx)
	for range 50 {
		server.Exec(t, db, "BEGIN; UPDATE a SET balance = balance - 1; UPDATE b SET balance = balance + 1; COMMIT")
	}
	cancel()
	if s := <-out; s.err != nil || s.looks == 0 {
		t.Errorf("%+v", s)
	}
	out = watch(t.Context())
	server.Exec(t, db, "UPDATE a SET balance = balance - 1")
	if s := <-out; s.err == nil || !strings.Contains(s.err.Error(), "99 of 100") {
		t.Errorf("half a transfer: %+v", s)
	}
}
