package main

import (
	"context"
	"fmt"
	"time"

	"github.com/weirstream/weir/test/bench/internal/lab"
	"github.com/weirstream/weir/test/bench/internal/report"
)

// The contenders.
const (
	peer      = "postgres subscription"
	streaming = "postgres subscription, streaming=on"
	weir      = "weir"
	twoLanes  = "weir, sink.lanes=2" // not one cut: told beside the others, and held to nothing
)

// A work is one thing both sides have to do.
type work struct {
	id      int
	name    string
	sides   []string // in the order of their turns
	tables  []lab.Table
	keep    bool // no turn changes the source, so it is made once
	lines   []line
	measure func(ctx context.Context, t *turn) (figures, error)
	// arrived tells whether a backlog is at the target as a whole; nil: its mark says so.
	arrived func(ctx context.Context, target *lab.Session) (bool, error)
}

// figures are what one turn measured, by the key of the line they belong to.
type figures map[string]float64

// A line is a quantity of a work, and whom it is compared with.
type line struct {
	key     string
	against string
	report.Line
	of string // whose it is; "" is weir's
}

// sizes of the works.
type sizes struct {
	copied, copiedEach, changed, small, single, tables, commits int
}

func sizesOf(quick bool) sizes {
	if quick {
		return sizes{copied: 100_000, copiedEach: 25_000, changed: 50_000, small: 15_000, single: 5_000, tables: 100, commits: 50}
	}
	return sizes{copied: 2_000_000, copiedEach: 500_000, changed: 1_000_000, small: 300_000, single: 100_000, tables: 5_000, commits: 200}
}

// memoryWork is the number of the line that spans all works.
const memoryWork = 11

// works lists what is measured, with the floors that weir has to reach.
func works(n sizes) []work {
	both := []string{peer, weir}
	one := lab.Tables(1, n.changed)
	one[0].Rows = 0
	empty := []lab.Table{one[0], lab.Marks()}
	full := []lab.Table{lab.Tables(1, n.changed)[0], lab.Marks()}
	all := []work{
		{
			id: 1, name: fmt.Sprintf("first copy of one table of %d rows", n.copied), sides: both, keep: true,
			tables: lab.Tables(1, n.copied), lines: []line{rate("rows/s", 1.2)}, measure: copying(20*time.Millisecond, n.copied),
		},
		{
			id: 2, name: fmt.Sprintf("first copy of four tables of %d rows", n.copiedEach), sides: both, keep: true,
			tables: lab.Tables(4, n.copiedEach), lines: []line{rate("rows/s", 1.3)}, measure: copying(20*time.Millisecond, 4*n.copiedEach),
		},
		{
			id: 3, name: fmt.Sprintf("apply %d inserts, 100-row transactions", n.changed), sides: both,
			tables: empty, lines: append([]line{rate("rows/s", 1.05), firstChange()}, processorTime()...),
			measure: draining(func(ctx context.Context, s *lab.Session) (int64, error) { return s.Inserts(ctx, n.changed, 100) }),
		},
		{
			id: 4, name: fmt.Sprintf("apply %d updates, 100-row transactions", n.changed), sides: both,
			tables: full, lines: append([]line{rate("rows/s", 1.15), firstChange()}, processorTime()...),
			measure: draining(func(ctx context.Context, s *lab.Session) (int64, error) {
				return s.Updates(ctx, n.changed, 100, n.changed)
			}),
		},
		{
			id: 5, name: fmt.Sprintf("apply %d updates, 10-row transactions", n.small), sides: both,
			tables: full, lines: append([]line{rate("rows/s", 1.15), firstChange()}, processorTime()...),
			measure: draining(func(ctx context.Context, s *lab.Session) (int64, error) {
				return s.Updates(ctx, n.small, 10, n.changed)
			}),
		},
		{
			id: 6, name: fmt.Sprintf("apply %d single-row update transactions", n.single), sides: both,
			tables: full, lines: append([]line{rate("transactions/s", 1.5), firstChange()}, processorTime()...),
			measure: draining(func(ctx context.Context, s *lab.Session) (int64, error) {
				return s.Updates(ctx, n.single, 1, n.changed)
			}),
		},
		{
			id: 7, name: fmt.Sprintf("one transaction of %d inserts, start to visible", n.changed), sides: []string{peer, weir, streaming},
			tables: empty, lines: []line{
				{key: "seconds", against: peer, Line: report.Line{Unit: "s", Floor: report.Floor{Ratio: 1.3}}},
				{key: "seconds", against: streaming, Line: report.Line{Work: "the same, peer with streaming=on", Unit: "s"}},
			},
			measure: transaction(n.changed),
		},
		{
			id: 8, name: fmt.Sprintf("first copy of %d tables of 100 rows", n.tables), sides: both, keep: true,
			tables: lab.Tables(n.tables, 100), lines: []line{rate("tables/s", 3)}, measure: copying(100*time.Millisecond, n.tables),
		},
		{
			id: 9, name: fmt.Sprintf("latency of %d single-row commits, 200 ms apart", n.commits), sides: both,
			tables: empty, lines: []line{
				{key: "p50", against: peer, Line: report.Line{Work: "commit to visible, p50", Unit: "ms", Floor: report.Floor{Most: 3}}},
				{key: "p99", against: peer, Line: report.Line{Work: "commit to visible, p99", Unit: "ms", Floor: report.Floor{Most: 10}}},
			},
			measure: latency(n.commits),
		},
		{
			id: 10, name: fmt.Sprintf("apply %d updates of two tables, 100-row transactions over both", n.changed), sides: []string{peer, weir, twoLanes},
			tables: append(lab.Tables(2, n.changed/2), lab.Marks()), lines: []line{
				rate("rows/s", 0),
				{key: "rate", against: peer, of: twoLanes, Line: report.Line{Work: "the same with sink.lanes=2, which is not one cut", Unit: "rows/s", Higher: true}},
			},
			measure: draining(func(ctx context.Context, s *lab.Session) (int64, error) {
				return s.UpdatesOfTwo(ctx, n.changed, 100, n.changed/2)
			}),
			arrived: func(ctx context.Context, target *lab.Session) (bool, error) { return target.BothArrived(ctx) },
		},
	}
	for i := range all {
		for k := range all[i].lines {
			l := &all[i].lines[k]
			if l.Work == "" {
				l.Work = all[i].name
			}
			l.Work, l.Peer = fmt.Sprintf("%d %s", all[i].id, l.Work), l.against
		}
	}
	return all
}

func rate(unit string, floor float64) line {
	return line{key: "rate", against: peer, Line: report.Line{Unit: unit, Higher: true, Floor: report.Floor{Ratio: floor}}}
}

// firstChange is the part of a drain that does not grow with the backlog. It asks for nothing: it explains a rate.
func firstChange() line {
	return line{key: "first", against: peer, Line: report.Line{Work: "from the order to go on to the first change", Unit: "s"}}
}

// processorTime lists where the time of a backlog goes. It asks for nothing: it explains a rate.
func processorTime() []line {
	cpu := func(key, name, against string) line {
		return line{key: key, against: against, Line: report.Line{Work: "CPU of " + name, Unit: "s per million rows"}}
	}
	return []line{
		cpu("own", "the weir process", ""),
		cpu("reader", "the walsender", peer),
		cpu("writer", "the target's backends or apply worker", peer),
		cpu("sum", "all three", peer),
	}
}
