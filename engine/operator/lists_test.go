package operator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// compareNulls orders NULL before all values.
func compareNulls[T any](a, b *T, compare func(a, b T) int) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return compare(*a, *b)
}

// compareColumn orders by one of the columns 2 to 5.
func compareColumn(col int, a, b value) int {
	switch col {
	case 2:
		return compareNulls(a.x, b.x, cmp.Compare[int64])
	case 3:
		return compareNulls(a.d, b.d, cmp.Compare[float64])
	case 4:
		return compareNulls(a.dec, b.dec, cmp.Compare[int64])
	}
	return compareNulls(a.s, b.s, strings.Compare)
}

func columnText(col int, v value) string {
	b := row.NewBuilder(inputTypes)
	b.Reset()
	appendValue(b, v, 1)
	return valueText(inputTypes[col], b.Cols[col], 0)
}

// orderedReference computes one of the functions of a group's rows in order.
func orderedReference(c AggCall, rows []value) string {
	var kept []value
	for _, v := range rows {
		if c.Filter >= 0 && (v.f == nil || !*v.f) || !c.KeepNulls && columnText(c.Arg, v) == "NULL" {
			continue
		}
		kept = append(kept, v)
	}
	slices.SortFunc(kept, func(a, b value) int {
		for _, o := range c.Order {
			x := compareColumn(o.Column, a, b)
			an, bn := columnText(o.Column, a) == "NULL", columnText(o.Column, b) == "NULL"
			switch {
			case x == 0:
				continue
			case an || bn:
				if o.NullsLast {
					return -x
				}
				return x
			case o.Desc:
				return -x
			}
			return x
		}
		return compareColumn(c.Arg, a, b)
	})
	if c.Distinct {
		kept = slices.CompactFunc(kept, func(a, b value) bool { return columnText(c.Arg, a) == columnText(c.Arg, b) })
	}
	var texts []string
	for _, v := range kept {
		texts = append(texts, columnText(c.Arg, v))
	}
	if c.Func == Collect {
		var counts []string
		for i, t := range texts {
			if i > 0 && texts[i-1] == t {
				continue
			}
			n := 0
			for _, u := range texts {
				if u == t {
					n++
				}
			}
			counts = append(counts, fmt.Sprint(n))
		}
		return "{" + strings.Join(slices.Compact(texts), " ") + ": " + strings.Join(counts, " ") + "}"
	}
	if len(texts) == 0 {
		return "NULL"
	}
	switch c.Func {
	case FirstValue:
		return texts[0]
	case LastValue:
		return texts[len(texts)-1]
	case ListAgg:
		return strings.Join(texts, c.Separator)
	}
	return "[" + strings.Join(texts, " ") + "]"
}

// TestListTooLong: a group whose list would be too long is a fault, and has its list again when rows go.
func TestListTooLong(t *testing.T) {
	spec := Aggregation{Node: "agg", Input: inputTypes, Group: []int{0}, Retract: true}
	for _, f := range []AggFunc{ListAgg, ArrayAgg, Collect} {
		typ, _ := f.ResultType(inputTypes[5])
		spec.Calls = append(spec.Calls, AggCall{Func: f, Arg: 5, Filter: -1, Type: typ})
	}
	_, all := spec.types()
	h := newHarness(t, all, func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
		return NewAggregate(spec, task, out)
	})
	defer h.store.Close()
	g, s := int64(7), "ab"
	change := func(w int64) {
		b := row.NewBuilder(inputTypes)
		b.Reset()
		appendValue(b, value{g1: &g, s: &s}, w)
		if err := h.op.Process(0, b.Seal()); err != nil {
			t.Fatal(err)
		}
		h.barrier()
	}
	for _, step := range []struct {
		w           int64
		out, faults string
	}{
		{2, "+1 7|abab|[ab ab]|{ab: 2}", ""},
		{1 << 30, "", "+1 ARRAY_AGG is longer than 256 MiB; +1 LISTAGG is longer than 256 MiB"},
		{1, "", "+1 ARRAY_AGG is longer than 256 MiB; +1 LISTAGG is longer than 256 MiB"},
		{-1 << 30, "+1 7|ababab|[ab ab ab]|{ab: 3}", ""},
	} {
		change(step.w)
		if out, faults := dump(h.out), dump(h.faults); out != step.out || faults != step.faults {
			t.Errorf("behind %+d: %q, faults %q, want %q and %q", step.w, out, faults, step.out, step.faults)
		}
	}
}

// TestAddingAllocatesNothing: neither the values of lists nor the elements of UNNEST cost an allocation each.
func TestAddingAllocatesNothing(t *testing.T) {
	list := row.Type{Kind: row.Array, Elem: &inputTypes[5]}
	b := row.NewBuilder(append(append([]row.Type{}, inputTypes...), list))
	b.Reset()
	r := rand.New(rand.NewPCG(1, 1))
	const rows = 1000
	for range rows {
		bytes, _ := randomList(r, list, 4)
		b.Cols[7].AppendBytes(bytes)
		appendValue(b, randomValue(r), 1)
	}
	spec := Aggregation{Node: "agg", Input: b.Types(), Group: []int{0}}
	for _, f := range []AggFunc{ListAgg, ArrayAgg, Collect, FirstValue, LastValue} {
		typ, _ := f.ResultType(inputTypes[5])
		spec.Calls = append(spec.Calls, AggCall{Func: f, Arg: 5, Filter: -1, Type: typ, Order: []AggOrder{{Column: 2, Desc: true}}})
	}
	_, all := spec.types()
	for name, mk := range map[string]func(dataflow.Task, dataflow.Emitter) (dataflow.Operator, error){
		"aggregate": func(task dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
			return NewAggregate(spec, task, out)
		},
		"unnest": func(task dataflow.Task, _ dataflow.Emitter) (dataflow.Operator, error) {
			return NewUnnest(Unnest{Input: b.Types(), List: 7, Keep: []int{0, 5, 7}, Ordinality: true}, task, nowhere{})
		},
	} {
		h := newHarness(t, all, mk)
		batch := b.Seal()
		if n := testing.AllocsPerRun(20, func() {
			if err := h.op.Process(0, batch); err != nil {
				t.Fatal(err)
			}
		}); n > rows/10 {
			t.Errorf("%s: %v allocations for %d rows", name, n, rows)
		}
		h.store.Close()
	}
}

type nowhere struct{}

func (nowhere) Emit(*row.Batch) error { return nil }
