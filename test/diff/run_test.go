package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/statetest"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/sql/plan"
)

var errCrash = errors.New("crash")

// feed is a source over a history: each transaction is given when all before it are published.
type feed struct {
	history []transaction
	tables  []plan.SourceTable
	b       []*row.Builder
	at      int
	table   int
	// confirmed gets the number of transactions whose outcome is published; nil: transactions follow without waiting.
	confirmed chan int
	published func(n int) // called between transactions, n of which are published
	crashAt   int
}

func (f *feed) Open(_ context.Context, st dataflow.State) error {
	if v := st["at"]; v != nil {
		f.at, _ = strconv.Atoi(string(v))
	}
	for _, t := range f.tables {
		f.b = append(f.b, row.NewBuilder(t.Types()))
	}
	return nil
}

func (f *feed) Read(ctx context.Context) (dataflow.Message, error) {
	for {
		if f.table == 0 && f.at > 0 && f.confirmed != nil {
			for n := 0; n < f.at; {
				select {
				case n = <-f.confirmed:
				case <-ctx.Done():
					return dataflow.Message{}, ctx.Err()
				}
			}
			f.published(f.at)
		}
		if f.crashAt > 0 && f.at == f.crashAt && f.table > 0 {
			return dataflow.Message{}, errCrash
		}
		if f.at == len(f.history) {
			return dataflow.Message{Kind: dataflow.KindEnd, Boundary: true}, nil
		}
		if f.table == len(f.tables) {
			f.table = 0
			f.at++
			return dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: []dataflow.StateChange{{Key: "at", Value: []byte(strconv.Itoa(f.at))}}}, nil
		}
		t := f.tables[f.table]
		changes := f.history[f.at][t.Name]
		f.table++
		if len(changes) == 0 {
			continue
		}
		b := f.b[f.table-1]
		b.Reset()
		for _, c := range changes {
			for i, col := range t.Columns {
				typ := t.Schema[col].Type
				if c.values[col] == "NULL" {
					b.Cols[i].AppendNull(typ.Layout())
				} else if err := row.ParseText(b.Cols[i], typ, []byte(c.values[col]), time.UTC); err != nil {
					return dataflow.Message{}, err
				}
			}
			b.EndRow(c.weight)
		}
		return dataflow.Message{Kind: dataflow.KindBatch, Batch: b.Seal(), Table: f.table - 1}, nil
	}
}

func (f *feed) Confirm(s []dataflow.StateChange) {
	for _, c := range s {
		if n, err := strconv.Atoi(string(c.Value)); err == nil && c.Key == "at" && f.confirmed != nil {
			f.confirmed <- n
		}
	}
}
func (f *feed) Close(context.Context) error { return nil }

// ledger is a sink that adds its table up and outlives pipelines.
type ledger struct {
	mu    sync.Mutex
	last  dataflow.Checkpoint
	types []row.Type
	rows  map[string]int64
	wrong error
}

func (l *ledger) Open(context.Context, dataflow.Generation, dataflow.Checkpoint) (dataflow.Checkpoint, error) {
	return l.last, nil
}

func (l *ledger) Publish(_ context.Context, c dataflow.Checkpoint, changes dataflow.Changes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		_, b, err := changes.Next()
		if err == io.EOF {
			l.last = c
			for text, w := range l.rows {
				if w < 0 {
					l.wrong = fmt.Errorf("row %s has weight %d", text, w)
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		for k := range b.Rows() {
			i := b.At(k)
			var vs []string
			for col, t := range l.types {
				v := "NULL"
				if !b.Cols[col].Nulls.Is(i) {
					v = canonical(t.Kind, string(row.AppendText(nil, t, b.Cols[col], i, time.UTC)))
				}
				vs = append(vs, v)
			}
			text := strings.Join(vs, "|")
			if l.rows[text] += b.Weight(i); l.rows[text] == 0 {
				delete(l.rows, text)
			}
		}
	}
}

// note keeps the first thing that is wrong.
func (l *ledger) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong == nil {
		l.wrong = err
	}
}

func (l *ledger) Close(context.Context) error { return nil }

func (l *ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return dump(l.rows)
}

func dump(m map[string]int64) string {
	var lines []string
	for k, w := range m {
		if w == 1 {
			lines = append(lines, k)
		} else {
			lines = append(lines, fmt.Sprintf("%s x%d", k, w))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// canonical writes a value so that equal ones of both systems have one text.
func canonical(k row.Kind, text string) string {
	switch k {
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt, row.Decimal:
		if v, ok := new(big.Rat).SetString(text); ok {
			return v.RatString()
		}
	case row.Float, row.Double:
		if v, err := strconv.ParseFloat(text, 64); err == nil {
			return strconv.FormatFloat(v+0, 'g', 10, 64)
		}
	case row.Boolean:
		return strings.ToLower(text[:1])
	case row.Timestamp:
		if strings.Contains(text, ".") {
			return strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
	}
	return text
}

// memory is a Durable whose content outlives pipelines.
type memory struct {
	t        testing.TB
	mu       sync.Mutex
	backing  *statetest.Backing
	last     dataflow.Checkpoint
	meta     []byte
	outboxes map[dataflow.Checkpoint][]byte
}

func (m *memory) Restored() (dataflow.Checkpoint, []byte) { return m.last, m.meta }
func (m *memory) Backing() state.Backing                  { return lockedBacking{m} }
func (m *memory) Absorbed() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(m.last)
}
func (m *memory) Commit(_ context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range deltas {
		m.backing.Apply(m.t, d)
	}
	m.last, m.meta = c, meta
	m.outboxes[c] = append([]byte(nil), outbox...)
	return nil
}

func (m *memory) Unpublished() (out []dataflow.Checkpoint) {
	for c := range m.outboxes {
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}
func (m *memory) Outbox(c dataflow.Checkpoint) ([]byte, error) { return m.outboxes[c], nil }
func (m *memory) Published(c dataflow.Checkpoint) {
	for k := range m.outboxes {
		if k <= c {
			delete(m.outboxes, k)
		}
	}
}

type lockedBacking struct{ m *memory }

func (l lockedBacking) Empty(id uint32) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.Empty(id)
}
func (l lockedBacking) Get(dst, key []byte) ([]byte, bool, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.Get(dst, key)
}
func (l lockedBacking) Scan(p []byte, f func(k, v []byte) error) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.Scan(p, f)
}
func (l lockedBacking) ID(name string) (uint32, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.backing.ID(name)
}

func environment() plan.Environment {
	return plan.Environment{Connectors: map[string]plan.Kind{
		"rows": {Source: true, Changelog: true, Bounded: func(map[string]string) bool { return true }, Group: func(map[string]string) string { return "rows" }},
		"out":  {Sink: true, SinkChangelog: true, SinkKeyless: true},
	}}
}

// build plans a query into a sink that takes its columns as they are. A view tells what they are.
func build(ddl, query string) (*plan.Program, error) {
	p, err := plan.Build("query.sql", ddl+"CREATE MATERIALIZED VIEW v AS\n"+query+";\n", environment())
	if err != nil {
		return nil, err
	}
	var cols []string
	for i, f := range p.Views[0].Schema {
		cols = append(cols, fmt.Sprintf("o%d %s", i, f.Type.Nullable()))
	}
	return plan.Build("query.sql", ddl+"CREATE TABLE result ("+strings.Join(cols, ", ")+") WITH ('connector' = 'out');\nINSERT INTO result\n"+query+";\n", environment())
}

// pipeline is one run of a program.
func pipeline(p *plan.Program, f *feed, l *ledger, parallelism int, d keyed.Durable) error {
	e := env.Real(slog.New(slog.DiscardHandler))
	o := keyed.Options{Graph: p.Graph, Parallelism: parallelism, Groups: 16, MaxEpoch: time.Millisecond, Durable: d}
	for i := range p.Sources {
		s := &p.Sources[i]
		k := keyed.Source{Name: s.Name}
		for j := range s.Tables {
			k.Tables = append(k.Tables, s.Tables[j].Types())
		}
		if s.Connector == "values" {
			k.Source = operator.NewConstant(s.Rows)
		} else {
			f.tables = s.Tables
			k.Source = f
		}
		o.Sources = append(o.Sources, k)
	}
	o.Sinks = []keyed.Sink{{Name: p.Sinks[0].Name, Sink: l, Tables: [][]row.Type{l.types}}}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pl := keyed.New(e, o)
	err := pl.Run(ctx)
	e.Wait()
	if n := pl.Status().Faults; err == nil && n != 0 {
		return fmt.Errorf("%d rows failed to be evaluated", n)
	}
	return err
}

// keys watches what the nodes of a graph emit that say that they have a key: it has to be one.
type keys struct {
	mu   sync.Mutex
	rows map[string]map[string]map[string]int64 // by node, key and row
}

type watched struct {
	dataflow.Emitter
	keys  *keys
	node  string
	key   []int
	types []row.Type
}

// Emit is part of dataflow.Emitter.
func (w *watched) Emit(b *row.Batch) error {
	w.keys.mu.Lock()
	for k := range b.Rows() {
		i := b.At(k)
		text := func(col int) string {
			if b.Cols[col].Nulls.Is(i) {
				return "NULL|"
			}
			return string(row.AppendText(nil, w.types[col], b.Cols[col], i, time.UTC)) + "|"
		}
		var key, all string
		for _, c := range w.key {
			key += text(c)
		}
		for c := range w.types {
			all += text(c)
		}
		if w.keys.rows[w.node] == nil {
			w.keys.rows[w.node] = map[string]map[string]int64{}
		}
		m := w.keys.rows[w.node][key]
		if m == nil {
			m = map[string]int64{}
			w.keys.rows[w.node][key] = m
		}
		if m[all] += b.Weight(i); m[all] == 0 {
			delete(m, all)
		}
	}
	w.keys.mu.Unlock()
	return w.Emitter.Emit(b)
}

// watch returns the graph with its keys watched.
func (k *keys) watch(g *dataflow.Graph) *dataflow.Graph {
	out := &dataflow.Graph{Nodes: append([]dataflow.Node(nil), g.Nodes...)}
	for i := range out.Nodes {
		n := &out.Nodes[i]
		if n.Make == nil || n.Key == nil {
			continue
		}
		mk, name, key, types := n.Make, n.ID+" "+n.Detail, n.Key, n.Schema.Types()
		n.Make = func(t dataflow.Task, e dataflow.Emitter) (dataflow.Operator, error) {
			return mk(t, &watched{e, k, name, key, types})
		}
	}
	return out
}

// wrong is the first key that has two rows, between epochs.
func (k *keys) wrong() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for node, byKey := range k.rows {
		for key, rows := range byKey {
			n := int64(0)
			for _, w := range rows {
				n += w
			}
			if len(rows) > 1 || n > 1 {
				return fmt.Errorf("key %s of node %s has rows %v", key, node, rows)
			}
		}
	}
	return nil
}

func newLedger(p *plan.Program) *ledger {
	return &ledger{types: p.Sinks[0].Tables[0].Schema.Types(), rows: map[string]int64{}}
}

// stepped runs a program a transaction at a time: answers[n] is the output when n transactions are in, for n > 0.
func stepped(p *plan.Program, history []transaction, parallelism int) ([]string, error) {
	l, k := newLedger(p), &keys{rows: map[string]map[string]map[string]int64{}}
	answers := make([]string, len(history)+1)
	f := &feed{history: history, confirmed: make(chan int, 2*len(history)+2), published: func(n int) {
		answers[n] = l.String()
		l.note(k.wrong())
	}}
	q := *p
	q.Graph = k.watch(p.Graph)
	if err := pipeline(&q, f, l, parallelism, nil); err != nil {
		return nil, err
	}
	l.note(k.wrong())
	answers[len(history)] = l.String()
	return answers, l.wrong
}

// crashing runs a program with crashes at random transactions and gives its last output.
func crashing(t testing.TB, r *rand.Rand, p *plan.Program, history []transaction) (_ string, runs string, _ error) {
	l := newLedger(p)
	m := &memory{t: t, backing: statetest.New(), outboxes: map[dataflow.Checkpoint][]byte{}}
	for run := 0; ; run++ {
		f := &feed{history: history}
		if run < 3 {
			f.crashAt = 1 + r.IntN(len(history))
		}
		if r.IntN(2) == 0 {
			f.confirmed, f.published = make(chan int, 2*len(history)+2), func(int) {}
		}
		if f.confirmed != nil && run > 0 { // what is confirmed already is not confirmed again
			f.confirmed = nil
		}
		tasks := 1 + r.IntN(3)
		runs += fmt.Sprintf("%d tasks from checkpoint %d (%s)", tasks, m.last, l)
		err := pipeline(p, f, l, tasks, m)
		runs += fmt.Sprintf(" to transaction %d, checkpoint %d, published %d\n", f.at, m.last, l.last)
		if err == nil {
			return l.String(), runs, l.wrong
		}
		if !errors.Is(err, errCrash) {
			return "", runs, err
		}
	}
}
