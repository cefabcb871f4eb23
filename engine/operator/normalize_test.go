package operator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// tableRow is a row of the tests' table: id BIGINT, region STRING, name STRING, n BIGINT, of which the first two are the key.
type tableRow struct {
	id     int64
	region string
	name   *string
	n      *int64
}

func (r tableRow) text() string {
	name, n := "NULL", "NULL"
	if r.name != nil {
		name = *r.name
	}
	if r.n != nil {
		n = fmt.Sprint(*r.n)
	}
	return fmt.Sprintf("%d|%s|%s|%s", r.id, r.region, name, n)
}

type keyed struct {
	id     int64
	region string
}

var tableTypes = []row.Type{{Kind: row.BigInt, NotNull: true}, {Kind: row.String, NotNull: true}, {Kind: row.String}, {Kind: row.BigInt}}

// keyedChange is a change as a source gives it. What is in unsent is garbage in the row.
type keyedChange struct {
	row    tableRow
	weight int64
	unsent int64
}

func feedKeyed(r *rand.Rand, op dataflow.Operator, changes []keyedChange) error {
	for len(changes) > 0 {
		n := 1 + r.IntN(len(changes))
		b := row.NewBuilder(append(slices.Clone(tableTypes), row.Type{Kind: row.BigInt, NotNull: true}))
		b.Reset()
		var sel []int32
		put := func(c keyedChange) {
			b.Cols[0].Int64 = append(b.Cols[0].Int64, c.row.id)
			b.Cols[1].AppendString(c.row.region)
			if c.row.name == nil || c.weight < 0 || c.unsent&4 != 0 {
				b.Cols[2].AppendNull(row.LayoutBytes)
			} else {
				b.Cols[2].AppendString(*c.row.name)
			}
			if c.row.n == nil || c.weight < 0 || c.unsent&8 != 0 {
				b.Cols[3].AppendNull(row.LayoutInt64)
			} else {
				b.Cols[3].Int64 = append(b.Cols[3].Int64, *c.row.n)
			}
			b.Cols[4].Int64 = append(b.Cols[4].Int64, c.unsent)
			b.EndRow(c.weight)
		}
		for _, c := range changes[:n] {
			if r.IntN(5) == 0 {
				put(keyedChange{tableRow{id: r.Int64N(5), region: "x"}, 1 - 2*r.Int64N(2), 0}) // a row that a filter left out
			}
			sel = append(sel, int32(b.Len))
			put(c)
		}
		batch := *b.Seal()
		if len(sel) < batch.Len {
			batch.Sel = sel
		}
		if err := op.Process(0, &batch); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// TestNormalizeAgainstTable: what has come out adds up to the table, whatever the changes, with restarts.
func TestNormalizeAgainstTable(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		h := newHarness(t, tableTypes, func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
			return NewNormalize(Normalize{Node: "n", Input: tableTypes, Key: []int{0, 1}, Unsent: true}, task, out)
		})
		table := map[keyed]tableRow{}
		saved := maps.Clone(table)
		anyKey := func() keyed { return keyed{r.Int64N(6), []string{"eu", "us"}[r.IntN(2)]} }
		anyRow := func(k keyed) tableRow {
			return tableRow{k.id, k.region, maybe(r, strings.Repeat("v", r.IntN(3))), maybe(r, r.Int64N(3))}
		}
		for range 25 {
			var changes []keyedChange
			for range r.IntN(25) {
				k := anyKey()
				old, there := table[k]
				switch r.IntN(6) {
				case 0, 1:
					now := anyRow(k)
					table[k] = now
					changes = append(changes, keyedChange{now, 1, 0})
				case 2:
					delete(table, k) // also of what is not there
					changes = append(changes, keyedChange{tableRow{id: k.id, region: k.region}, -1, 0})
				case 3, 4:
					if !there {
						continue
					}
					now, unsent := anyRow(k), int64(4*r.IntN(4))
					if unsent&4 != 0 {
						now.name = old.name
					}
					if unsent&8 != 0 {
						now.n = old.n
					}
					table[k] = now
					changes = append(changes, keyedChange{now, 1, unsent})
				case 5: // the key changes, and the large value is left out
					to := anyKey()
					if _, taken := table[to]; !there || taken {
						continue
					}
					now := anyRow(to)
					now.name = old.name
					delete(table, k)
					table[to] = now
					changes = append(changes, keyedChange{tableRow{id: k.id, region: k.region}, -1, UnsentMoved}, keyedChange{now, 1, 4})
				}
			}
			if err := feedKeyed(r, h.op, changes); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if gone := someGone(r); gone != nil {
				if err := h.op.(dataflow.Emptier).Empty(gone); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				maps.DeleteFunc(table, func(k keyed, _ tableRow) bool {
					return (gone.After == nil || k.id > *gone.After) && (gone.Through == nil || k.id <= *gone.Through)
				})
			}
			h.barrier()
			want := map[string]int64{}
			for _, v := range table {
				want[v.text()]++
			}
			if got, want := dump(h.out), dump(want); got != want {
				t.Fatalf("seed %d\n got %s\nwant %s", seed, got, want)
			}
			switch r.IntN(6) {
			case 0:
				h.checkpoint()
				saved = maps.Clone(table)
			case 1:
				h.restore()
				table = maps.Clone(saved)
			}
		}
		h.store.Close()
	}
}

// someGone is what empties the tests' table or a range of it now and then.
func someGone(r *rand.Rand) *dataflow.Emptied {
	gone := &dataflow.Emptied{}
	after, through := r.Int64N(6)-1, r.Int64N(6)
	switch r.IntN(250) {
	case 0:
	case 1:
		gone.After = &after
	case 2:
		gone.Through = &through
	case 3:
		gone.After, gone.Through = &after, &through
	default:
		return nil
	}
	return gone
}

// counting counts what passes.
type counting struct{ rows int }

func (c *counting) Emit(b *row.Batch) error { c.rows += b.Rows(); return nil }

// TestNormalizeSaysOnlyNews: what a source says twice is passed on once, and a key that never had a row leaves nothing.
func TestNormalizeSaysOnlyNews(t *testing.T) {
	out := &counting{}
	h := newHarness(t, tableTypes, func(task dataflow.Task, _ dataflow.Emitter) (dataflow.Operator, error) {
		return NewNormalize(Normalize{Node: "n", Input: tableTypes, Key: []int{0, 1}, Unsent: true}, task, out)
	})
	name := "a"
	r := rand.New(rand.NewPCG(1, 1))
	for range 2 {
		if err := feedKeyed(r, h.op, []keyedChange{{tableRow{id: 1, region: "eu", name: &name}, 1, 0}, {tableRow{id: 2, region: "eu"}, -1, 0}}); err != nil {
			t.Fatal(err)
		}
		h.barrier()
	}
	if out.rows != 1 {
		t.Errorf("%d rows came out, want 1", out.rows)
	}
	if n := h.op.(*normalize).bag.Keys().Len(); n != 1 {
		t.Errorf("%d keys are kept, want 1", n)
	}
}

// TestNormalizeRefusesUnknown: a row that nobody can complete is an error with a hint, not a guess.
func TestNormalizeRefusesUnknown(t *testing.T) {
	h := newHarness(t, tableTypes, func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
		return NewNormalize(Normalize{Node: "n", Input: tableTypes, Key: []int{0, 1}, Unsent: true}, task, out)
	})
	err := feedKeyed(rand.New(rand.NewPCG(1, 1)), h.op, []keyedChange{{tableRow{id: 1, region: "eu"}, 1, 4}})
	if e, ok := errs.As(err); !ok || e.Code != errs.SourceStream || e.Hint == "" || !strings.Contains(err.Error(), "column 2") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkNormalize(b *testing.B) {
	h := newHarness(&testing.T{}, tableTypes, func(task dataflow.Task, _ dataflow.Emitter) (dataflow.Operator, error) {
		return NewNormalize(Normalize{Node: "n", Input: tableTypes, Key: []int{0, 1}}, task, &counting{})
	})
	const rows = 1024
	in := row.NewBuilder(tableTypes)
	b.ReportAllocs()
	turn := int64(0)
	for b.Loop() {
		in.Reset()
		for i := range int64(rows) {
			in.Cols[0].Int64 = append(in.Cols[0].Int64, i)
			in.Cols[1].AppendString("eu")
			in.Cols[2].AppendString("some name of usual length")
			in.Cols[3].Int64 = append(in.Cols[3].Int64, turn)
			in.EndRow(1)
		}
		turn++
		if err := h.op.Process(0, in.Seal()); err != nil {
			b.Fatal(err)
		}
		if turn%64 == 0 {
			h.store.NextEpoch()
			h.checkpoint()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
}
