package expr

import (
	"bytes"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// collectionFunctions work on arrays, maps and rows. Their kernels build values one at a time in vectors of their own.
func collectionFunctions() []*Function {
	return []*Function{
		{name: "ARRAY", resolve: resolveArray, bind: bindArray, nulls: true, notNull: true, cost: 60,
			print: func(c *Call) string { return "ARRAY[" + joinExprs(c.Args, ", ") + "]" }},
		{name: "MAP", resolve: resolveMap, bind: bindMapConstructor, nulls: true, notNull: true, cost: 100,
			print: func(c *Call) string { return "MAP[" + joinExprs(c.Args, ", ") + "]" }},
		{name: "ROW", resolve: resolveRow, bind: bindRow, nulls: true, notNull: true, cost: 60},
		{name: ".", hidden: true, resolve: resolveRowField, bind: bindRowField, nullable: true, cost: 10, print: func(c *Call) string {
			return c.Args[0].String() + "." + quoteName(c.Args[1].(*Const).Text())
		}},
		{name: "[]", hidden: true, resolve: resolveItem, bind: bindItem, nullable: true, faults: true, cost: 20, print: func(c *Call) string {
			return c.Args[0].String() + "[" + c.Args[1].String() + "]"
		}},
		{name: "CARDINALITY", sig: "a|m", result: integer, cost: 5, bind: func(c *Call, _ *Settings) (kernel, error) {
			isMap := c.Args[0].Type().Kind != row.Array
			return countKernel(func(b []byte) int64 {
				if isMap {
					b, _ = row.SplitMap(b)
				}
				return int64(row.ListLen(b))
			}), nil
		}},
		{name: "ELEMENT", sig: "a", result: elementType, nullable: true, faults: true, cost: 20, bind: func(c *Call, _ *Settings) (kernel, error) {
			elem := *c.Args[0].Type().Elem
			return func(f *frame) {
				f.each(func(i int) {
					l := row.ReadList(elem, f.in[0].Bytes(i))
					switch l.Len() {
					case 0:
						f.null(i)
					case 1:
						f.element(i, &l, 0)
					default:
						f.fail(i, errs.EvalArgument, "ELEMENT takes an array of one element")
					}
				})
			}, nil
		}},
		{name: "ARRAY_CONTAINS", resolve: resolveArrayAnd(boolean), bind: bindArrayPosition(true), cost: 40, nulls: true},
		{name: "ARRAY_POSITION", resolve: resolveArrayAnd(integer), bind: bindArrayPosition(false), cost: 40, nulls: true},
		{name: "ARRAY_APPEND", resolve: resolveArrayAnd(nil), bind: bindArrayEdit(func(v, x *row.Vector, l *listEditor) { l.all(v); l.add(x) }), cost: 60, nulls: true},
		{name: "ARRAY_PREPEND", resolve: resolveArrayAnd(nil), bind: bindArrayEdit(func(v, x *row.Vector, l *listEditor) { l.add(x); l.all(v) }), cost: 60, nulls: true},
		{name: "ARRAY_REMOVE", resolve: resolveArrayAnd(nil), bind: bindArrayEdit(func(v, x *row.Vector, l *listEditor) { l.without(v, x) }), cost: 60, nulls: true},
		{name: "ARRAY_DISTINCT", sig: "a", result: returnsArg(0), bind: bindLists(func(l *listEditor, vs []row.List) { l.distinct(&vs[0]) }), cost: 100},
		{name: "ARRAY_REVERSE", sig: "a", result: returnsArg(0), bind: bindLists(func(l *listEditor, vs []row.List) {
			for k := vs[0].Len() - 1; k >= 0; k-- {
				l.take(&vs[0], k)
			}
		}), cost: 60},
		{name: "ARRAY_CONCAT", sig: "a*", resolve: resolveArrays, bind: bindLists(func(l *listEditor, vs []row.List) {
			for j := range vs {
				for k := range vs[j].Len() {
					l.take(&vs[j], k)
				}
			}
		}), cost: 60},
		{name: "ARRAY_SLICE", sig: "ai?i", result: returnsArg(0), bind: bindArraySlice, cost: 60},
		{name: "ARRAY_MAX", sig: "a", result: elementType, nullable: true, bind: bindArrayExtreme(1), cost: 40},
		{name: "ARRAY_MIN", sig: "a", result: elementType, nullable: true, bind: bindArrayExtreme(-1), cost: 40},
		{name: "ARRAY_JOIN", sig: "as?s", resolve: resolveArrayJoin, nullable: true, bind: bindArrayJoin, cost: 60},
		{name: "MAP_KEYS", sig: "m", cost: 10, result: func(args []Expr) row.Type {
			return row.Type{Kind: row.Array, Elem: args[0].Type().Key}
		}, bind: bindMapHalf(func(b []byte) []byte { k, _ := row.SplitMap(b); return k })},
		{name: "MAP_VALUES", sig: "m", cost: 10, result: func(args []Expr) row.Type {
			return row.Type{Kind: row.Array, Elem: args[0].Type().Elem}
		}, bind: bindMapHalf(func(b []byte) []byte { _, v := row.SplitMap(b); return v })},
		{name: "SPLIT", sig: "ss", cost: 80, result: func([]Expr) row.Type {
			t := kind(row.String)
			t.NotNull = true
			return row.Type{Kind: row.Array, Elem: &t}
		}, bind: bindSplit},
	}
}

func elementType(args []Expr) row.Type { return *args[0].Type().Elem }

// element writes element k of a list to row i of the result.
func (f *frame) element(i int, l *row.List, k int) {
	if l.IsNull(k) {
		f.null(i)
		return
	}
	switch f.e.Type().Layout() {
	case row.LayoutInt64:
		f.out.Int64[i] = l.Int64(k)
	case row.LayoutFloat64:
		f.out.Float64[i] = l.Float64(k)
	case row.LayoutDecimal:
		f.out.Decimal[i] = l.Decimal(k)
	case row.LayoutBytes:
		off := len(f.heap)
		f.heap = append(f.heap, l.Bytes(k)...)
		f.put(i, off)
	}
}

// appendValue appends value i of from to v.
func appendValue(v *row.Vector, layout row.Layout, from *row.Vector, i int) {
	if from.Nulls.Is(i) {
		v.AppendNull(layout)
		return
	}
	switch layout {
	case row.LayoutInt64:
		v.Int64 = append(v.Int64, from.Int64[i])
	case row.LayoutFloat64:
		v.Float64 = append(v.Float64, from.Float64[i])
	case row.LayoutDecimal:
		v.Decimal = append(v.Decimal, from.Decimal[i])
	case row.LayoutBytes:
		v.AppendBytes(from.Bytes(i))
	}
}

// copyValue writes value k of v, which is not NULL, to row i of the result.
func (f *frame) copyValue(i int, layout row.Layout, v *row.Vector, k int) {
	switch layout {
	case row.LayoutInt64:
		f.out.Int64[i] = v.Int64[k]
	case row.LayoutFloat64:
		f.out.Float64[i] = v.Float64[k]
	case row.LayoutDecimal:
		f.out.Decimal[i] = v.Decimal[k]
	case row.LayoutBytes:
		off := len(f.heap)
		f.heap = append(f.heap, v.Bytes(k)...)
		f.put(i, off)
	}
}

// resolveArrayAnd is a function of an array and a value of its elements' type. result nil: it returns the array's type.
func resolveArrayAnd(result func([]Expr) row.Type) func(*Function, []Expr) (Expr, error) {
	return func(f *Function, args []Expr) (Expr, error) {
		if len(args) != 2 || args[0].Type().Kind != row.Array {
			return nil, f.mismatch(args)
		}
		elem, err := CommonType(*args[0].Type().Elem, args[1].Type())
		if err != nil {
			return nil, f.mismatch(args)
		}
		array := row.Type{Kind: row.Array, Elem: &elem}
		out := []Expr{castNode(args[0], array, false), castNode(args[1], elem, false)}
		t := array
		if result != nil {
			t = result(out)
		}
		c := f.typed(out, t)
		c.T.NotNull = args[0].Type().NotNull
		return c, nil
	}
}

// bindArrayPosition: where the value is in the array, from 1; 0 or FALSE where it is not. NULL is looked for like a value.
func bindArrayPosition(contains bool) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		elem := *c.Args[0].Type().Elem
		compare := comparer(elem)
		var v row.Vector
		return func(f *frame) {
			f.each(func(i int) {
				if f.in[0].Nulls.Is(i) || !contains && f.in[1].Nulls.Is(i) {
					f.null(i)
					return
				}
				l := row.ReadList(elem, f.in[0].Bytes(i))
				f.out.Int64[i] = 0
				for k := range l.Len() {
					found := l.IsNull(k) && f.in[1].Nulls.Is(i)
					if !l.IsNull(k) && !f.in[1].Nulls.Is(i) {
						v.Truncate()
						l.AppendTo(&v, k)
						found = compare(&v, 0, f.in[1], i) == 0
					}
					if found {
						f.out.Int64[i] = int64(k + 1)
						if contains {
							f.out.Int64[i] = 1
						}
						return
					}
				}
			})
		}, nil
	}
}

// listEditor gathers the elements of a new list.
type listEditor struct {
	elem    row.Type
	compare func(a *row.Vector, i int, b *row.Vector, j int) int
	v       row.Vector
	n       int
}

func newListEditor(elem row.Type) *listEditor {
	return &listEditor{elem: elem, compare: comparer(elem)}
}

func (l *listEditor) reset() { l.v.Truncate(); l.n = 0 }

func (l *listEditor) take(from *row.List, k int) { from.AppendTo(&l.v, k); l.n++ }

// add appends the only value of x; all those of v, whose length the vectors themselves say.
func (l *listEditor) add(x *row.Vector) { appendValue(&l.v, l.elem.Layout(), x, 0); l.n++ }

func (l *listEditor) all(v *row.Vector) {
	for k := range lengthOf(v, l.elem.Layout()) {
		appendValue(&l.v, l.elem.Layout(), v, k)
		l.n++
	}
}

func lengthOf(v *row.Vector, layout row.Layout) int {
	switch layout {
	case row.LayoutInt64:
		return len(v.Int64)
	case row.LayoutFloat64:
		return len(v.Float64)
	case row.LayoutDecimal:
		return len(v.Decimal)
	}
	return len(v.Spans)
}

func (l *listEditor) same(a *row.Vector, i int, b *row.Vector, j int) bool {
	an, bn := a.Nulls.Is(i), b.Nulls.Is(j)
	return an && bn || !an && !bn && l.compare(a, i, b, j) == 0
}

func (l *listEditor) without(v, x *row.Vector) {
	for k := range lengthOf(v, l.elem.Layout()) {
		if !l.same(v, k, x, 0) {
			appendValue(&l.v, l.elem.Layout(), v, k)
			l.n++
		}
	}
}

func (l *listEditor) distinct(from *row.List) {
	var one row.Vector
	for k := range from.Len() {
		one.Truncate()
		from.AppendTo(&one, k)
		twice := false
		l.v.Seal(l.n)
		for j := range l.n {
			twice = twice || l.same(&l.v, j, &one, 0)
		}
		if !twice {
			l.take(from, k)
		}
	}
}

func (l *listEditor) appendTo(dst []byte) []byte {
	l.v.Seal(l.n)
	return row.AppendList(dst, l.elem, &l.v, nil, l.n)
}

func bindArrayEdit(edit func(v, x *row.Vector, l *listEditor)) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		elem := *c.Args[0].Type().Elem
		l := newListEditor(elem)
		var v, x row.Vector
		return func(f *frame) {
			f.each(func(i int) {
				if f.in[0].Nulls.Is(i) {
					f.null(i)
					return
				}
				list := row.ReadList(elem, f.in[0].Bytes(i))
				v.Truncate()
				x.Truncate()
				for k := range list.Len() {
					list.AppendTo(&v, k)
				}
				v.Seal(list.Len())
				appendValue(&x, elem.Layout(), f.in[1], i)
				l.reset()
				edit(&v, &x, l)
				off := len(f.heap)
				f.heap = l.appendTo(f.heap)
				f.put(i, off)
			})
		}, nil
	}
}

func resolveArrays(f *Function, args []Expr) (Expr, error) {
	for _, a := range args {
		if a.Type().Kind != row.Array {
			return nil, f.mismatch(args)
		}
	}
	if len(args) == 0 || f.sig == "aa" && len(args) != 2 {
		return nil, f.mismatch(args)
	}
	out, t, err := unify(f.name, args)
	if err != nil {
		return nil, err
	}
	return f.typed(out, t), nil
}

// bindLists makes a list of lists.
func bindLists(edit func(l *listEditor, lists []row.List)) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		elem := *c.T.Elem
		l := newListEditor(elem)
		lists := make([]row.List, len(c.Args))
		return func(f *frame) {
			f.each(func(i int) {
				for k, v := range f.in {
					lists[k] = row.ReadList(elem, v.Bytes(i))
				}
				l.reset()
				edit(l, lists)
				off := len(f.heap)
				f.heap = l.appendTo(f.heap)
				f.put(i, off)
			})
		}, nil
	}
}

// bindArraySlice is the elements from one place to another, both counted from 1, or from the end if negative.
func bindArraySlice(c *Call, _ *Settings) (kernel, error) {
	elem := *c.T.Elem
	l := newListEditor(elem)
	return func(f *frame) {
		f.each(func(i int) {
			list := row.ReadList(elem, f.in[0].Bytes(i))
			n := int64(list.Len())
			place := func(x int64) int64 {
				if x < 0 {
					return x + n + 1
				}
				return x
			}
			from, to := place(f.in[1].Int64[i]), n
			if len(f.in) > 2 {
				to = min(place(f.in[2].Int64[i]), n)
			}
			l.reset()
			for k := max(from, 1); k <= to; k++ {
				l.take(&list, int(k-1))
			}
			off := len(f.heap)
			f.heap = l.appendTo(f.heap)
			f.put(i, off)
		})
	}, nil
}

func bindArrayExtreme(sign int) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		elem := *c.Args[0].Type().Elem
		if ordered, _ := comparable(elem); !ordered {
			return nil, errs.New(errs.SQLTypeMismatch, "values of %s have no order", elem.Nullable())
		}
		compare, layout := comparer(elem), elem.Layout()
		var v row.Vector
		return func(f *frame) {
			f.each(func(i int) {
				l := row.ReadList(elem, f.in[0].Bytes(i))
				v.Truncate()
				best := -1
				for k := range l.Len() {
					l.AppendTo(&v, k)
					if !l.IsNull(k) && (best < 0 || compare(&v, k, &v, best)*sign > 0) {
						best = k
					}
				}
				if best < 0 {
					f.null(i)
					return
				}
				f.copyValue(i, layout, &v, best)
			})
		}, nil
	}
}

func resolveArrayJoin(f *Function, args []Expr) (Expr, error) {
	out, ok := f.match(args)
	if !ok || args[0].Type().Elem.Kind != row.String && args[0].Type().Elem.Kind != row.Null {
		return nil, f.mismatch(args)
	}
	return f.typed(out, kind(row.String)), nil
}

// bindArrayJoin joins texts; NULLs are left out, or written as the third argument.
func bindArrayJoin(c *Call, _ *Settings) (kernel, error) {
	elem := *c.Args[0].Type().Elem
	return func(f *frame) {
		f.each(func(i int) {
			l := row.ReadList(elem, f.in[0].Bytes(i))
			off, first := len(f.heap), true
			for k := range l.Len() {
				var b []byte
				switch {
				case !l.IsNull(k):
					b = l.Bytes(k)
				case len(f.in) < 3:
					continue
				default:
					b = f.in[2].Bytes(i)
				}
				if !first {
					f.heap = append(f.heap, f.in[1].Bytes(i)...)
				}
				first = false
				f.heap = append(f.heap, b...)
			}
			f.put(i, off)
		})
	}, nil
}

// bindMapHalf: the lists inside a map are arrays as they are.
func bindMapHalf(half func(b []byte) []byte) func(*Call, *Settings) (kernel, error) {
	return bindMap(func(dst, b []byte) []byte { return append(dst, half(b)...) })
}

func bindSplit(c *Call, _ *Settings) (kernel, error) {
	elem := *c.T.Elem
	var v row.Vector
	return func(f *frame) {
		f.each(func(i int) {
			b, sep := f.in[0].Bytes(i), f.in[1].Bytes(i)
			v.Truncate()
			n := 0
			for len(sep) == 0 && len(b) > 0 {
				size := runeOffset(b, 1)
				v.AppendBytes(b[:size])
				b = b[size:]
				n++
			}
			for len(sep) > 0 {
				k := bytes.Index(b, sep)
				n++
				if k < 0 {
					v.AppendBytes(b)
					break
				}
				v.AppendBytes(b[:k])
				b = b[k+len(sep):]
			}
			off := len(f.heap)
			f.heap = row.AppendList(f.heap, elem, &v, nil, n)
			f.put(i, off)
		})
	}, nil
}
