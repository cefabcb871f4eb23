package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/sinks/blackhole"
	"github.com/weirstream/weir/sql/plan"
	"github.com/weirstream/weir/test/bench/internal/proc"
	"github.com/weirstream/weir/test/nexmark"
)

// metered counts events of a source and calls at when it passes a number of them.
type metered struct {
	dataflow.Source
	seen, at int64
	passed   func()
	blocks   int64
}

func (m *metered) Lasting() {}

func (m *metered) Read(ctx context.Context) (dataflow.Message, error) {
	msg, err := m.Source.Read(ctx)
	if err == nil && msg.Boundary && msg.Kind != dataflow.KindEnd {
		if m.seen += m.blocks; m.seen >= m.at && m.passed != nil {
			m.passed()
			m.passed = nil
		}
	}
	return msg, err
}

// store keeps checkpoints as a worker does, but for the manifest's way through raft.
type store struct {
	*disk.Pipeline
	restored disk.Restored
	took     []time.Duration
	bytes    int64
}

func (s *store) Restored() (dataflow.Checkpoint, []byte) {
	return dataflow.Checkpoint(s.restored.Checkpoint), s.restored.Meta
}

func (s *store) Commit(ctx context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	began := time.Now()
	f, err := s.Prepare(ctx, uint64(c), deltas, outbox, meta)
	if err != nil {
		return err
	}
	s.Pipeline.Commit(uint64(c))
	s.took = append(s.took, time.Since(began))
	s.bytes += f.Bytes
	return nil
}

func (s *store) Unpublished() []dataflow.Checkpoint { return nil }

func (s *store) Outbox(c dataflow.Checkpoint) ([]byte, error) { return s.Pipeline.Outbox(uint64(c)) }

func (s *store) Published(c dataflow.Checkpoint) { s.Pipeline.Published(uint64(c)) }

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func environment() plan.Environment {
	bounded := func(map[string]string) bool { return true }
	return plan.Environment{Connectors: map[string]plan.Kind{
		"nexmark":   {Source: true, Bounded: bounded, Group: func(map[string]string) string { return "nexmark" }},
		"side":      {Source: true, Bounded: bounded},
		"blackhole": {Sink: true, SinkChangelog: true, SinkKeyless: true},
	}}
}

const side = "CREATE TABLE side (key BIGINT NOT NULL, text STRING) WITH ('connector' = 'side');\n"

func find(name string) (string, error) {
	for _, q := range nexmark.Queries() {
		if q.Name == name {
			return q.SQL, nil
		}
	}
	return "", fmt.Errorf("there is no query %s", name)
}

// program plans a query into a blackhole.
func program(query string) (*plan.Program, error) {
	sql, err := find(query)
	if err != nil {
		return nil, err
	}
	ddl := nexmark.DDL() + side
	p, err := plan.Build(query+".sql", ddl+"CREATE MATERIALIZED VIEW result AS "+sql, environment())
	if err != nil {
		return nil, err
	}
	sink := "CREATE TABLE sink ("
	for i, f := range p.Views[0].Schema {
		if i > 0 {
			sink += ", "
		}
		sink += fmt.Sprintf("`%s` %s", f.Name, f.Type.Nullable())
	}
	return plan.Build(query+".sql", ddl+sink+") WITH ('connector' = 'blackhole');\nINSERT INTO sink "+sql, environment())
}

func run(ctx context.Context, query string, warm, events int64, parallelism int, interval time.Duration, memory int64, profile string) (r result, err error) {
	p, err := program(query)
	if err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp("", "weir-bench-engine")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e := env.Real(slog.New(slog.DiscardHandler))
	d, err := disk.Open(e, dir, disk.Options{})
	if err != nil {
		return r, err
	}
	dp, err := d.Pipeline("bench")
	if err != nil {
		return r, err
	}
	s := &store{Pipeline: dp}
	if s.restored, err = dp.Recover(0); err != nil {
		return r, err
	}
	o := keyed.Options{Graph: p.Graph, Parallelism: parallelism, Durable: s, CheckpointInterval: interval, Generation: 1, MemoryBytes: memory}
	var began time.Time
	var used time.Duration
	start := func() { began, used = time.Now(), cpu() }
	for i := range p.Sources {
		src := &p.Sources[i]
		ks := keyed.Source{Name: src.Name, First: src.First}
		for j := range src.Tables {
			ks.Tables = append(ks.Tables, src.Tables[j].Types())
		}
		switch src.Connector {
		case "nexmark":
			no := nexmark.Options{Seed: 1, TPS: 100_000, Count: warm + events}
			for _, t := range src.Tables {
				nt := nexmark.Table{Kind: kindOf(t.Name), Columns: []string{}}
				for _, c := range t.Columns {
					nt.Columns = append(nt.Columns, t.Schema[c].Name)
				}
				no.Tables = append(no.Tables, nt)
			}
			before := cpu()
			prepared, err := nexmark.Prepare(no)
			if err != nil {
				return r, err
			}
			r.MakePerEvent = float64((cpu() - before).Nanoseconds()) / float64(warm+events)
			ps, err := prepared.Source(0, 1)
			if err != nil {
				return r, err
			}
			ks.Source = &metered{Source: ps, at: warm, blocks: nexmark.BlockEvents, passed: func() {
				start()
				if profile != "" {
					f, err := os.Create(profile)
					if err == nil {
						_ = pprof.StartCPUProfile(f)
					}
				}
			}}
		case "side":
			t := src.Tables[0]
			b := row.NewBuilder(t.Types())
			b.Reset()
			for k := range int64(10_000) {
				for c, col := range t.Columns {
					if col == 0 {
						b.Cols[c].Int64 = append(b.Cols[c].Int64, k)
					} else {
						b.Cols[c].AppendString(fmt.Sprint("value of ", k))
					}
				}
				b.EndRow(1)
			}
			ks.Source = operator.NewConstant(b.Seal())
		}
		o.Sources = append(o.Sources, ks)
	}
	hole := blackhole.New(blackhole.Options{Tasks: parallelism, Tables: 1})
	for i := range p.Sinks {
		o.Sinks = append(o.Sinks, keyed.Sink{Name: p.Sinks[i].Name, Sink: hole, Tables: [][]row.Type{p.Sinks[i].Tables[0].Schema.Types()}})
	}
	k := keyed.New(e, o)
	stop := make(chan struct{})
	sampled := make(chan []time.Duration)
	go func() {
		var took []time.Duration
		last := uint64(0)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if st := k.Status(); st.Epoch != last {
					last = st.Epoch
					took = append(took, st.EpochTook)
				}
			case <-stop:
				sampled <- took
				return
			}
		}
	}()
	if err := k.Run(ctx); err != nil {
		return r, err
	}
	r.CPU, r.Wall, r.Events = cpu()-used, time.Since(began), events
	if profile != "" {
		pprof.StopCPUProfile()
	}
	close(stop)
	epochs := <-sampled
	slices.Sort(epochs)
	if len(epochs) > 0 {
		r.EpochP99 = epochs[len(epochs)*99/100]
	}
	st := k.Status()
	r.State, r.DeltaBytes, r.Checkpoints = st.StateBytes, s.bytes, len(s.took)
	slices.Sort(s.took)
	if len(s.took) > 0 {
		r.Checkpoint = s.took[len(s.took)/2]
	}
	r.RowsOut = hole.Count(0).Rows
	r.Resident, _ = proc.PeakBytes(os.Getpid())
	return r, d.Close()
}

func kindOf(table string) nexmark.Kind {
	for k := nexmark.Person; k <= nexmark.Bid; k++ {
		if k.String() == table {
			return k
		}
	}
	return nexmark.Bid
}
