package operator

import (
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

// Unnest makes a row of each element of a list: an ARRAY, a MAP or a MULTISET. Weights pass through.
type Unnest struct {
	Node string
	// Input are the types of the input's columns.
	Input []row.Type
	// List is the column with the list.
	List int
	// Keep are the columns of the input that the output has; the element's columns stand behind them.
	Keep []int
	// Outer: a row without elements stays, with NULL in their place.
	Outer bool
	// Ordinality: the element's number, from 1, as the last column.
	Ordinality bool
}

// ElementColumns are the columns of one element, without the number: the fields of a ROW, key and value of a MAP, or the
// element. Columns without a name have none in SQL either.
func ElementColumns(list row.Type) row.Schema {
	if list.Kind == row.Map {
		key, value := row.MapTypes(list)
		return row.Schema{{Name: "KEY", Type: key}, {Name: "VALUE", Type: value}}
	}
	elem := *list.Elem
	if elem.Kind != row.Struct {
		return row.Schema{{Type: elem}}
	}
	var s row.Schema
	for _, f := range elem.Fields {
		// The fields of an element that is NULL are NULL.
		f.Type.NotNull = f.Type.NotNull && elem.NotNull
		s = append(s, f)
	}
	return s
}

type unnest struct {
	spec    Unnest
	out     dataflow.Emitter
	list    row.Type
	elem    row.Type // of an ARRAY or MULTISET
	value   row.Type // of a MAP: the value's, and elem is the key's; of a MULTISET: the count's
	fields  *row.Codec
	layouts []row.Layout // of the element's columns
	sel     []int32      // for each row of the output the input's
	vectors []row.Vector
	weights []int64
	emit    row.Batch
	one     [1][]byte
}

// NewUnnest returns a task's instance.
func NewUnnest(spec Unnest, _ dataflow.Task, out dataflow.Emitter) (dataflow.Operator, error) {
	u := &unnest{spec: spec, out: out, list: spec.Input[spec.List]}
	u.elem = *u.list.Elem
	if u.list.Kind != row.Array {
		u.elem, u.value = row.MapTypes(u.list)
	}
	if u.list.Kind != row.Map && u.elem.Kind == row.Struct {
		u.fields = row.NewCodec(row.Schema(u.elem.Fields).Types())
	}
	for _, f := range ElementColumns(u.list) {
		u.layouts = append(u.layouts, f.Type.Layout())
	}
	if spec.Ordinality {
		u.layouts = append(u.layouts, row.LayoutInt64)
	}
	u.vectors = make([]row.Vector, len(spec.Keep)+len(u.layouts))
	for i := range u.vectors {
		u.emit.Cols = append(u.emit.Cols, &u.vectors[i])
	}
	u.reset()
	return u, nil
}

func (u *unnest) reset() {
	u.sel = u.sel[:0]
	for i := range u.vectors {
		if i < len(u.spec.Keep) {
			u.vectors[i].Heap = nil
		}
		u.vectors[i].Truncate()
	}
}

// Process passes a row on for each element.
func (u *unnest) Process(_ int, b *row.Batch) error {
	lists := b.Cols[u.spec.List]
	for k := range b.Rows() {
		i := b.At(k)
		n := int64(0)
		if !lists.Nulls.Is(i) {
			var err error
			if n, err = u.elements(b, i, lists.Bytes(i)); err != nil {
				return err
			}
		}
		if n > 0 || !u.spec.Outer {
			continue
		}
		for c := range u.layouts {
			u.element(c).AppendNull(u.layouts[c])
		}
		if err := u.end(b, i); err != nil {
			return err
		}
	}
	return u.flush(b)
}

func (u *unnest) element(c int) *row.Vector { return &u.vectors[len(u.spec.Keep)+c] }

// elements makes the rows of the list of row i, and says how many.
func (u *unnest) elements(b *row.Batch, i int, bytes []byte) (int64, error) {
	var values row.List
	if u.list.Kind != row.Array {
		var second []byte
		bytes, second = row.SplitMap(bytes)
		values = row.ReadList(u.value, second)
	}
	l := row.ReadList(u.elem, bytes)
	number := int64(0)
	for k := range l.Len() {
		times := int64(1)
		if u.list.Kind == row.Multiset {
			times = values.Int64(k)
		}
		for range times {
			switch {
			case u.fields == nil:
				l.AppendTo(u.element(0), k)
			case l.IsNull(k):
				for c := range u.elem.Fields {
					u.element(c).AppendNull(u.layouts[c])
				}
			default:
				u.one[0] = l.Bytes(k)
				for c := range u.elem.Fields {
					u.fields.Decode(u.element(c), len(u.sel), c, u.one[:])
				}
			}
			if u.list.Kind == row.Map {
				values.AppendTo(u.element(1), k)
			}
			if number++; u.spec.Ordinality {
				v := u.element(len(u.layouts) - 1)
				v.Int64 = append(v.Int64, number)
			}
			if err := u.end(b, i); err != nil {
				return 0, err
			}
		}
	}
	return number, nil
}

// end ends a row of the output, which came of row i.
func (u *unnest) end(b *row.Batch, i int) error {
	u.sel = append(u.sel, int32(i))
	if len(u.sel) < row.MaxBatch {
		return nil
	}
	return u.flush(b)
}

func (u *unnest) flush(b *row.Batch) error {
	n := len(u.sel)
	if n == 0 {
		return nil
	}
	for k, c := range u.spec.Keep {
		u.keep(&u.vectors[k], u.spec.Input[c].Layout(), b.Cols[c])
	}
	for c := range u.layouts {
		u.element(c).Seal(n)
	}
	u.emit.Len, u.emit.Weights = n, nil
	if b.Weights != nil {
		u.weights = u.weights[:0]
		for _, i := range u.sel {
			u.weights = append(u.weights, b.Weights[i])
		}
		u.emit.Weights = u.weights
	}
	err := u.out.Emit(&u.emit)
	u.reset()
	return err
}

// keep sets v to from's value for each row of the output. Bytes are not copied: a row of many elements that is kept with
// its list would be as long as the square of it.
func (u *unnest) keep(v *row.Vector, l row.Layout, from *row.Vector) {
	if l != row.LayoutBytes {
		v.Gather(l, 0, from, u.sel, 0)
		return
	}
	v.Heap = from.Heap // lent, and never appended to
	for k, i := range u.sel {
		v.Spans = append(v.Spans, from.Spans[i])
		if from.Nulls.Is(int(i)) {
			v.SetNull(k, len(u.sel))
		}
	}
}

// Barrier has nothing to do.
func (u *unnest) Barrier(dataflow.Epoch) error { return nil }
