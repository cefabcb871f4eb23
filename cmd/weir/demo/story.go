package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
)

const (
	tickPeriod = 100 * time.Millisecond // how often the story looks at the mirror
	sayPeriod  = time.Second            // how often it says what it sees
	copyPeriod = 400 * time.Millisecond // the same while tables are copied, which is over soon
	deadPeriod = 2 * time.Second        // how long the mirror stays dead
	killPeriod = 5 * time.Second        // between two kills, with Crash
	waitLimit  = 3 * time.Minute        // for a copy, or for catching up
)

// story is one showing.
type story struct {
	Options
	env   *env.Env
	place *place
	began time.Time
	shop  sizes

	source, target string
	traffic        *traffic
	reader         *reader
	mirror         *mirror

	kills    int
	saidAddr string
	lastSaid time.Time
}

// say prints a line with the seconds since the beginning.
func (s *story) say(format string, args ...any) {
	s.Say("%5.1fs  %s", s.env.Clock.Now().Sub(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// prepare builds the shop and starts the mirror.
func (s *story) prepare(ctx context.Context) error {
	s.source, s.target = s.place.source.URL(database), s.place.target.URL(database)
	for _, server := range []string{s.place.source.URL("postgres"), s.place.target.URL("postgres")} {
		if err := createDatabase(ctx, server, database); err != nil {
			return err
		}
	}
	s.say("building a shop on the source: 7 tables, about %s rows, foreign keys, an enum, jsonb, arrays, a table without a key", cli.Count(int64(s.Rows)))
	if err := buildShop(ctx, s.source, s.shop); err != nil {
		return err
	}
	s.traffic = &traffic{env: s.env, url: s.source, shop: s.shop, rate: s.Rate}
	s.reader = &reader{env: s.env, url: s.target}
	s.mirror = &mirror{env: s.env, program: s.Program, dir: s.place.weirDir(), source: s.source, target: s.target, httpAddr: s.HTTPAddr, keep: s.place.keep}
	s.say("source: psql '%s'", s.source)
	s.say("target: psql '%s'", s.target)
	s.say("the shop opens: %d customers at a time, %d rows a second", writers, s.Rate)
	s.say("$ weir mirror SOURCE TARGET --tables 'public.*' --state %s", s.mirror.state())
	err := s.mirror.open()
	if err == nil {
		err = s.mirror.start()
	}
	if err != nil {
		return errors.Join(err, s.mirror.close())
	}
	return nil
}

// tell is the story from the first start of the mirror to the comparison.
func (s *story) tell(ctx context.Context, copied chan<- struct{}, closeShop func()) error {
	if s.Crash {
		if err := s.until(ctx, "the copy is under way", func(st api.PipelineStatus) bool { return part(st) > 0.2 || live(st) }); err != nil {
			return err
		}
		if err := s.crash(ctx, "in the middle of the copy"); err != nil {
			return err
		}
	}
	if err := s.until(ctx, "all tables are copied", live); err != nil {
		return err
	}
	s.say("all tables are copied; from now on a reader looks at the target every %s and adds up orders, items and payments", lookPeriod)
	close(copied)
	if err := s.middle(ctx); err != nil {
		return err
	}
	closeShop()
	s.say("the shop closes: %s", s.sales())
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	return s.prove(ctx)
}

// middle is while the shop is open: a new column, and the mirror is killed at least once.
func (s *story) middle(ctx context.Context) error {
	opened := s.env.Clock.Now()
	past := func(part float64) func(api.PipelineStatus) bool {
		return func(api.PipelineStatus) bool {
			return s.env.Clock.Now().Sub(opened) >= time.Duration(part*float64(s.For))
		}
	}
	if err := s.until(ctx, "", past(0.2)); err != nil {
		return err
	}
	s.say("source: ALTER TABLE customers ADD COLUMN loyalty_points integer NOT NULL DEFAULT 0")
	s.traffic.alter.Store(true)
	if err := s.until(ctx, "", past(0.4)); err != nil {
		return err
	}
	if err := s.crash(ctx, "while customers buy"); err != nil {
		return err
	}
	last := s.env.Clock.Now()
	return s.until(ctx, "the shop closes", func(st api.PipelineStatus) bool {
		now := s.env.Clock.Now()
		if s.Crash && live(st) && now.Sub(last) >= killPeriod && !past(0.85)(st) {
			last = now.Add(deadPeriod)
			if err := s.crash(ctx, "again"); err != nil {
				return false // the mirror that did not start again is found by the next look
			}
		}
		return past(1)(st) && s.traffic.altered.Load()
	})
}

// crash kills the mirror with SIGKILL, lets the shop go on without it, and starts it again.
func (s *story) crash(ctx context.Context, when string) error {
	pid, before := s.mirror.process.Pid, s.traffic.changes.Load()
	if err := s.mirror.kill(); err != nil {
		return err
	}
	s.kills++
	s.say("kill -9 %d: the mirror is dead, %s; the shop goes on", pid, when)
	if err := s.env.Clock.Sleep(ctx, deadPeriod); err != nil {
		return err
	}
	s.say("$ weir mirror …: the same command again; %s rows were written meanwhile", cli.Count(s.traffic.changes.Load()-before))
	return s.mirror.start()
}

// until watches the mirror, and says what it sees, until a condition holds. what names the condition in the error of
// one that does not come true.
func (s *story) until(ctx context.Context, what string, done func(api.PipelineStatus) bool) error {
	began := s.env.Clock.Now()
	for {
		if err := s.mirror.failed(); err != nil {
			return err
		}
		addr, st, ok := s.mirror.look(ctx)
		if ok {
			if st.Phase == api.PhaseFailed && st.Error != nil {
				return fmt.Errorf("the mirror has failed: error[%s] %s", st.Error.Code, st.Error.Message)
			}
			s.watch(addr, st)
			if done(st) {
				return nil
			}
		}
		if s.env.Clock.Now().Sub(began) > waitLimit+s.For {
			return fmt.Errorf("waited %s in vain until %s; the mirror said\n%s", cli.Took(waitLimit+s.For), what, s.mirror.logTail())
		}
		if err := s.env.Clock.Sleep(ctx, tickPeriod); err != nil {
			return err
		}
	}
}

// watch says how far the mirror is, once a second.
func (s *story) watch(addr string, st api.PipelineStatus) {
	if addr != s.saidAddr {
		s.saidAddr = addr
		s.say("REST and metrics: http://%s/api/v1/pipelines/%s  http://%s/metrics", addr, pipeline, addr)
	}
	period := sayPeriod
	if st.Phase == api.PhaseCopy {
		period = copyPeriod
	}
	now := s.env.Clock.Now()
	if now.Sub(s.lastSaid) < period {
		return
	}
	s.lastSaid = now
	shop := "shop " + cli.Count(s.traffic.changes.Load()) + " rows"
	switch e := st.Error; {
	case e != nil && st.Phase == api.PhaseRetrying:
		s.say("%-8s error[%s] %s", st.Phase, e.Code, e.Message)
	case live(st):
		s.say("%-8s lag %dms, %s   applied %s   reader: %d looks, never off   %s", st.Phase, max(st.LagMS, 0), cli.Bytes(st.LagBytes),
			cli.RowRate(st.RowsPerSec), s.reader.looks.Load(), shop)
	case st.Phase == api.PhaseCatchUp:
		s.say("%-8s lag %dms, %s   %s", st.Phase, max(st.LagMS, 0), cli.Bytes(st.LagBytes), shop)
	case len(st.Tables) == 0:
		s.say("%-8s %s", st.Phase, shop)
	default:
		var rows int64
		for _, t := range st.Tables {
			rows += max(t.Rows, 0)
		}
		s.say("%-8s %s %2.0f %%   %s rows of %s   %s", st.Phase, bar(part(st)), part(st)*100, cli.Count(rows),
			cli.Plural(len(st.Tables), "table"), shop)
	}
}

// part is how much of the copy is done. Totals are estimates, so that only the end
// of the copy is everything.
func part(st api.PipelineStatus) float64 {
	if len(st.Tables) == 0 {
		return 0
	}
	var done, total float64
	for _, t := range st.Tables {
		size := float64(max(t.RowsTotal, t.Rows, 1))
		total += size
		if t.Phase == api.PhaseLive || t.Phase == api.PhaseCatchUp {
			done += size
		} else {
			done += min(float64(max(t.Rows, 0)), size)
		}
	}
	if live(st) {
		return 1
	}
	return min(done/total, 0.99)
}

func bar(part float64) string {
	const width = 20
	full := int(part * width)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// sales sums up what the customers did.
func (s *story) sales() string {
	n := func(k kind) int64 { return s.traffic.done[k].Load() }
	return fmt.Sprintf("%d transactions, %d rows; %d orders (%d with a savepoint rolled back), %d cancelled, %d truncates, %d new column",
		s.traffic.commits.Load(), s.traffic.changes.Load(), n(orderPlaced)+n(orderDoubted), n(orderDoubted), n(orderCancelled), n(cartsEmptied), n(columnAdded))
}

// catchUp writes a last row and waits until the target has it. The mirror applies transactions in the order of their
// commits, so that everything before it is there as well. That does not ask the mirror what it believes.
func (s *story) catchUp(ctx context.Context) error {
	began := s.env.Clock.Now()
	source, err := pgx.Connect(ctx, s.source)
	if err != nil {
		return fmt.Errorf("close the shop: %w", err)
	}
	defer source.Close(context.WithoutCancel(ctx))
	target, err := pgx.Connect(ctx, s.target)
	if err != nil {
		return fmt.Errorf("look for the last row: %w", err)
	}
	defer target.Close(context.WithoutCancel(ctx))
	var last int64
	if err := source.QueryRow(ctx, `INSERT INTO carts (customer_id, contents) VALUES (0, '{"the": "last"}') RETURNING id`).Scan(&last); err != nil {
		return fmt.Errorf("close the shop: %w", err)
	}
	var failed error
	err = s.until(ctx, "the last row is on the target", func(api.PipelineStatus) bool {
		var there bool
		failed = target.QueryRow(ctx, "SELECT EXISTS (SELECT FROM carts WHERE id = $1)", last).Scan(&there)
		return there || failed != nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	s.say("caught up after %s", cli.Took(s.env.Clock.Now().Sub(began).Round(time.Millisecond)))
	return nil
}

// prove compares both sides and says what the reader saw.
func (s *story) prove(ctx context.Context) error {
	stopping, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.mirror.stop(stopping); err != nil {
		return err
	}
	s.say("the mirror is stopped; comparing both sides row by row")
	tables, err := compare(ctx, s.source, s.target)
	if err != nil {
		return err
	}
	table := cli.Table{Head: []string{"        TABLE", "SOURCE ROWS", "TARGET ROWS", "SOURCE CHECKSUM", "TARGET CHECKSUM", ""}, Right: []bool{false, true, true}}
	different := 0
	for _, c := range tables {
		answer := "equal"
		if !c.equal() {
			different++
			answer = "DIFFERENT"
		}
		table.Rows = append(table.Rows, []string{"        " + c.name(), fmt.Sprint(c.source.rows), fmt.Sprint(c.target.rows),
			c.source.short(), c.target.short(), answer})
	}
	s.Say("%s", strings.TrimRight(table.String(), "\n"))
	looks := s.reader.looks.Load()
	s.say("the reader looked %d times and saw %d different states: payments = orders = items, never off; the mirror was killed %s meanwhile",
		looks, s.reader.different.Load(), times(s.kills))
	switch {
	case different > 0:
		return fmt.Errorf("source and target differ in %s", cli.Plural(different, "table"))
	case looks == 0 || s.reader.different.Load() < 2:
		return fmt.Errorf("the reader looked %d times and saw the target move %d times: that proves nothing", looks, s.reader.different.Load())
	}
	s.say("equal: %s, nothing lost, nothing doubled", cli.Plural(len(tables), "table"))
	return nil
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
