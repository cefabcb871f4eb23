package nexmark

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/test/conform"
)

// The stream is a definition that other engines share: these numbers come from outside of this package.
func TestSum(t *testing.T) {
	if got := fmt.Sprintf("%016x", Sum(NewGenerator(1, 100_000), 0, 1_000_000)); got != "86738980ddc9356c" {
		t.Errorf("the checksum of one million events is %s, want 86738980ddc9356c", got)
	}
}

func TestFiles(t *testing.T) {
	sums := func(seed uint64, tps int64, count int) (json string, csv [numKinds]string) {
		gen := NewGenerator(seed, tps)
		p := NewPrinter(gen, 0)
		h := sha256.New()
		for range count {
			h.Write(p.AppendJSON(nil))
		}
		json = hex.EncodeToString(h.Sum(nil))[:16]
		p = NewPrinter(gen, 0)
		var out [numKinds]bytes.Buffer
		for range count {
			line, k := p.AppendCSV(nil)
			out[k].Write(line)
		}
		for k := range out {
			s := sha256.Sum256(out[k].Bytes())
			csv[k] = hex.EncodeToString(s[:])[:16]
		}
		return json, csv
	}
	for _, c := range []struct {
		seed  uint64
		tps   int64
		count int
		json  string
		csv   [numKinds]string
	}{
		{1, 100_000, 10_000, "32af1e18028b156d", [numKinds]string{"e7532d64f4cb694f", "d2ee02a49f2749a9", "80c81338c4f80904"}},
		{7, 300, 9_999, "eec4ba32a26e2ad8", [numKinds]string{"4d6dfe7bb4b42f9f", "a4b1d33b204b5110", "d941c6da0e15d28d"}},
	} {
		json, csv := sums(c.seed, c.tps, c.count)
		if json != c.json || csv != c.csv {
			t.Errorf("seed %d, tps %d: json %s, csv %v, want %s, %v", c.seed, c.tps, json, csv, c.json, c.csv)
		}
	}
}

// lines reads a source to its end and gives its rows as text, block by block; stop ends after that many messages and
// gives the state reached at the last boundary.
func lines(t *testing.T, s dataflow.Source, opts Options, state dataflow.State, stop int) (rows []string, at dataflow.State) {
	t.Helper()
	ctx := context.Background()
	if err := s.Open(ctx, state); err != nil {
		t.Fatal(err)
	}
	at = dataflow.State{}
	for k, v := range state {
		at[k] = v
	}
	var open []string
	for range stop {
		m, err := s.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == dataflow.KindEnd {
			return append(rows, open...), at
		}
		if m.Kind == dataflow.KindBatch {
			for i := range m.Batch.Len {
				line := []byte(fmt.Sprint(m.Table))
				schema, err := opts.Tables[m.Table].Schema()
				if err != nil {
					t.Fatal(err)
				}
				for c, f := range schema {
					form := byte('i')
					if len(m.Batch.Cols[c].Spans) > 0 {
						form = 's'
					}
					line = appendValue(append(append(line, ' '), f.Name[:2]...), m.Batch.Cols[c], i, form)
				}
				open = append(open, string(line))
			}
		}
		if m.Boundary {
			rows, open = append(rows, open...), nil
			for _, c := range m.State {
				at[c.Key] = c.Value
			}
		}
	}
	return rows, at
}

// A projection, splits, a stretch and a restart change nothing about the rows of an event.
func TestSources(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 15 {
		full := Options{Seed: r.Uint64(), TPS: 1 + r.Int64N(200_000), Tables: Everything()}
		opts := full
		opts.First, opts.Count = r.Int64N(3*BlockEvents), 1+r.Int64N(4*BlockEvents)
		if r.IntN(2) == 0 {
			opts.Tables = []Table{{Kind: Bid, Columns: []string{"price", "extra", "auction"}}, {Kind: Auction, Columns: []string{"category", "id", "extra"}}}
		}
		if r.IntN(4) == 0 {
			opts.Count = 1 + r.Int64N(3)
		}
		prepared, err := Prepare(opts)
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := lines(t, source(t, opts), opts, nil, 1000)
		splits := 1 + r.IntN(3)
		var parts [2]int
		for which := range parts {
			for split := range splits {
				o := opts
				o.Split, o.Splits = split, splits
				open := func() dataflow.Source {
					if which == 0 {
						return source(t, o)
					}
					s, err := prepared.Source(split, splits)
					if err != nil {
						t.Fatal(err)
					}
					return s
				}
				head, state := lines(t, open(), o, nil, r.IntN(12))
				tail, _ := lines(t, open(), o, state, 1000)
				rows := append(head, tail...)
				parts[which] += len(rows)
				straight, _ := lines(t, open(), o, nil, 1000)
				if fmt.Sprint(rows) != fmt.Sprint(straight) {
					t.Fatalf("%+v: a restart gives other rows", o)
				}
				if splits == 1 && fmt.Sprint(rows) != fmt.Sprint(whole) {
					t.Fatalf("%+v: prepared rows differ from made ones", o)
				}
			}
		}
		want := 0
		for _, table := range opts.Tables {
			for n := opts.First; n < opts.First+opts.Count; n++ {
				if KindOf(n) == table.Kind {
					want++
				}
			}
		}
		if parts[0] != want || parts[1] != want || len(whole) != want {
			t.Errorf("%+v: %d rows made, %d prepared, %d in one, want %d", opts, parts[0], parts[1], len(whole), want)
		}
	}
}

func TestConform(t *testing.T) {
	opts := Options{Seed: 5, First: 1234, Count: 5 * BlockEvents, Tables: []Table{{Kind: Auction}, {Kind: Bid, Columns: []string{"url", "dateTime"}}}}
	var types [][]row.Type
	for _, table := range opts.Tables {
		s, err := table.Schema()
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, s.Types())
	}
	p, err := Prepare(opts)
	if err != nil {
		t.Fatal(err)
	}
	conform.TestTypedSource(t, conform.TypedSource{Tables: types, New: func(t *testing.T) dataflow.Source { return source(t, opts) }, Cuts: 3})
	conform.TestTypedSource(t, conform.TypedSource{Tables: types, Cuts: 3, New: func(t *testing.T) dataflow.Source {
		s, err := p.Source(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
}

// The columns of a projection are those of the full rows.
func TestProjection(t *testing.T) {
	gen := NewGenerator(3, 1000)
	for k := range numKinds {
		full, err := newTarget(Table{Kind: k})
		if err != nil {
			t.Fatal(err)
		}
		gen.fill(full, 0, BlockEvents)
		for c, f := range Schema(k) {
			one, err := newTarget(Table{Kind: k, Columns: []string{f.Name}})
			if err != nil {
				t.Fatal(err)
			}
			gen.fill(one, 0, BlockEvents)
			a, b := full.col[c], one.col[c]
			if fmt.Sprint(a.Int64, a.Spans) != fmt.Sprint(b.Int64, b.Spans) || !bytes.Equal(a.Heap, b.Heap) {
				t.Errorf("%s.%s alone differs", k, f.Name)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, o := range []Options{
		{TPS: -1}, {First: -1}, {Splits: 2, Split: 2},
		{Tables: []Table{{Kind: Bid, Columns: []string{"seller"}}}},
		{Tables: []Table{{Kind: Bid, Columns: []string{"price", "price"}}}},
	} {
		if _, err := New(o, nil); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	s := source(t, Options{Splits: 3, Split: 1})
	if err := s.Open(context.Background(), Options{Splits: 2, Split: 1}.asState(5)); err == nil {
		t.Error("a position among two splits is taken by three")
	}
}

func (o Options) asState(n int64) dataflow.State {
	c := o.stateOf(n)[0]
	return dataflow.State{c.Key: c.Value}
}

func TestNoAllocations(t *testing.T) {
	s := source(t, Options{})
	if err := s.Open(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	read := func() {
		for range len(s.targets) {
			if _, err := s.Read(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	read()
	if a := testing.AllocsPerRun(20, read); a > 3 { // the state of the boundary
		t.Errorf("%v allocations a block", a)
	}
}

func source(t testing.TB, opts Options) *Source {
	t.Helper()
	s, err := New(opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func BenchmarkGenerate(b *testing.B) {
	for _, c := range []struct {
		name   string
		tables []Table
	}{
		{"all", Everything()},
		{"bids", []Table{{Kind: Bid}}},
		{"q5", []Table{{Kind: Bid, Columns: []string{"auction", "dateTime"}}}},
		{"price", []Table{{Kind: Bid, Columns: []string{"price"}}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := source(b, Options{Tables: c.tables})
			if err := s.Open(context.Background(), nil); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for events := 0; events < b.N; events += BlockEvents {
				for range c.tables {
					if _, err := s.Read(context.Background()); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkPrint(b *testing.B) {
	p := NewPrinter(NewGenerator(1, 100_000), 0)
	var line []byte
	for range b.N {
		line = p.AppendJSON(line[:0])
	}
	_, _ = io.Discard.Write(line)
}
