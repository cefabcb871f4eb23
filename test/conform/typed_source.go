package conform

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// TypedSource is a source of typed batches over an input that does not change and ends.
type TypedSource struct {
	Tables [][]row.Type // the columns of each
	// New makes a source over the same input; the suite opens and closes it.
	New func(t *testing.T) dataflow.Source
	// Cuts is how many of the states are restarted from; default 20, drawn by chance.
	Cuts int
}

// typedRow is a row with its table and weight, as bytes that can be compared.
type typedRow string

// typedCut is a state at a boundary and how many rows lie before it.
type typedCut struct {
	state dataflow.State
	rows  int
}

// TestTypedSource holds a source to the contract: whole batches, a state with which another source gives exactly the
// rest, an end that stays, and an answer to a context that has ended.
func TestTypedSource(t *testing.T, h TypedSource) {
	if h.Cuts == 0 {
		h.Cuts = 20
	}
	whole, cuts := h.read(t, nil)
	if len(cuts) == 0 {
		t.Fatal("the source has no boundary")
	}
	r := rand.New(rand.NewPCG(1, 2))
	picked := []int{0, len(cuts) - 1}
	for range h.Cuts {
		picked = append(picked, r.IntN(len(cuts)))
	}
	for _, i := range picked {
		c := cuts[i]
		rest, again := h.read(t, c.state)
		if !slices.Equal(rest, whole[c.rows:]) {
			t.Fatalf("a restart behind row %d of %d gives %d rows, or others than the %d that follow", c.rows, len(whole), len(rest), len(whole)-c.rows)
		}
		// And from a state that was reached after a restart.
		c2 := again[r.IntN(len(again))]
		if rest, _ := h.read(t, c2.state); !slices.Equal(rest, whole[c.rows+c2.rows:]) {
			t.Fatalf("a second restart behind row %d of %d gives other rows", c.rows+c2.rows, len(whole))
		}
	}
	t.Run("context", func(t *testing.T) {
		s := h.New(t)
		if err := s.Open(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := s.Read(ctx); err == nil {
			t.Error("Read goes on although its context has ended")
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Run("close after a failed open", func(t *testing.T) {
		s := h.New(t)
		if err := s.Open(context.Background(), dataflow.State{"no such key": []byte{1}}); err == nil {
			t.Error("Open takes a state that is none of the source's")
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// read reads from a state to the end.
func (h TypedSource) read(t *testing.T, from dataflow.State) (rows []typedRow, cuts []typedCut) {
	t.Helper()
	ctx := context.Background()
	s := h.New(t)
	if err := s.Open(ctx, maps.Clone(from)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	codecs := make([]*row.Codec, len(h.Tables))
	for i, types := range h.Tables {
		codecs[i] = row.NewCodec(types)
	}
	state := maps.Clone(from)
	if state == nil {
		state = dataflow.State{}
	}
	boundary := true
	cuts = append(cuts, typedCut{maps.Clone(state), 0})
	for {
		m, err := s.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == dataflow.KindEnd {
			if !boundary {
				t.Error("the source ends although its last rows have no boundary behind them")
			}
			if m, err := s.Read(ctx); err != nil || m.Kind != dataflow.KindEnd {
				t.Errorf("behind the end comes kind %d, %v", m.Kind, err)
			}
			return rows, cuts
		}
		if m.Kind == dataflow.KindBatch {
			if err := checkBatch(h.Tables, m); err != nil {
				t.Fatal(err)
			}
			for k := range m.Batch.Rows() {
				i := m.Batch.At(k)
				head := fmt.Sprintf("%d %d ", m.Table, m.Batch.Weight(i))
				rows = append(rows, typedRow(codecs[m.Table].Append([]byte(head), m.Batch, i)))
			}
		}
		for _, c := range m.State {
			if c.Value == nil {
				delete(state, c.Key)
			} else {
				state[c.Key] = slices.Clone(c.Value)
			}
		}
		if boundary = m.Boundary; boundary {
			cuts = append(cuts, typedCut{maps.Clone(state), len(rows)})
		}
	}
}

// checkBatch says what is wrong with a batch's form.
func checkBatch(tables [][]row.Type, m dataflow.Message) error {
	b := m.Batch
	switch {
	case m.Table < 0 || m.Table >= len(tables):
		return fmt.Errorf("a batch of table %d", m.Table)
	case len(b.Cols) != len(tables[m.Table]):
		return fmt.Errorf("table %d: a batch of %d columns", m.Table, len(b.Cols))
	case b.Len > row.MaxBatch || b.Rows() == 0:
		return fmt.Errorf("table %d: a batch of %d rows", m.Table, b.Rows())
	case b.Weights != nil && len(b.Weights) != b.Len:
		return fmt.Errorf("table %d: %d weights of %d rows", m.Table, len(b.Weights), b.Len)
	}
	for c, t := range tables[m.Table] {
		v := b.Cols[c]
		n := map[row.Layout]int{row.LayoutInt64: len(v.Int64), row.LayoutFloat64: len(v.Float64), row.LayoutDecimal: len(v.Decimal), row.LayoutBytes: len(v.Spans)}[t.Layout()]
		if n != b.Len {
			return fmt.Errorf("table %d, column %d: %d values of %d rows", m.Table, c, n, b.Len)
		}
		if len(v.Nulls) != 0 && len(v.Nulls) != (b.Len+63)/64 {
			return fmt.Errorf("table %d, column %d: a bitmap of %d words for %d rows", m.Table, c, len(v.Nulls), b.Len)
		}
		for k := range b.Rows() {
			if t.NotNull && v.Nulls.Is(b.At(k)) {
				return fmt.Errorf("table %d, column %d: NULL in a column that is NOT NULL", m.Table, c)
			}
		}
	}
	return nil
}
