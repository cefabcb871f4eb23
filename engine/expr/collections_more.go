package expr

import (
	"bytes"
	"slices"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// moreCollections are the functions of sets and of whole maps.
func moreCollections() []*Function {
	return []*Function{
		{name: "ARRAY_UNION", sig: "aa", resolve: resolveArrays, bind: bindLists(func(l *listEditor, vs []row.List) {
			l.distinct(&vs[0])
			l.distinct(&vs[1])
		}), cost: 120},
		{name: "ARRAY_INTERSECT", sig: "aa", resolve: resolveArrays, bind: bindLists(func(l *listEditor, vs []row.List) { l.chosen(vs, true) }), cost: 120},
		{name: "ARRAY_EXCEPT", sig: "aa", resolve: resolveArrays, bind: bindLists(func(l *listEditor, vs []row.List) { l.chosen(vs, false) }), cost: 120},
		{name: "ARRAY_SORT", sig: "a?bb", result: returnsArg(0), bind: bindArraySort, cost: 150},
		{name: "MAP_FROM_ARRAYS", sig: "aa", faults: true, cost: 40, result: func(args []Expr) row.Type {
			return row.Type{Kind: row.Map, Key: args[0].Type().Elem, Elem: args[1].Type().Elem}
		}, bind: func(*Call, *Settings) (kernel, error) {
			return func(f *frame) {
				f.each(func(i int) {
					keys, values, off := f.in[0].Bytes(i), f.in[1].Bytes(i), len(f.heap)
					if row.ListLen(keys) != row.ListLen(values) {
						f.fail(i, errs.EvalArgument, "there are not as many keys as values")
						return
					}
					f.heap = row.AppendMap(f.heap, keys, values)
					f.put(i, off)
				})
			}, nil
		}},
		{name: "MAP_ENTRIES", sig: "m", cost: 80, bind: bindMapEntries, result: func(args []Expr) row.Type {
			t := args[0].Type()
			entry := row.Type{Kind: row.Struct, Fields: []row.Field{{Name: "key", Type: *t.Key}, {Name: "value", Type: *t.Elem}}}
			return row.Type{Kind: row.Array, Elem: &entry}
		}},
		{name: "STR_TO_MAP", sig: "s?ss", cost: 100, bind: bindStrToMap, result: func([]Expr) row.Type {
			t := kind(row.String)
			return row.Type{Kind: row.Map, Key: &t, Elem: &t}
		}},
		{name: "ELT", sig: "is*", resolve: resolveElt},
		{name: "TYPEOF", resolve: func(f *Function, args []Expr) (Expr, error) {
			if len(args) != 1 {
				return nil, takes(f, "a value")
			}
			return Str(args[0].Type().Nullable().String()), nil
		}},
		{name: "IS_ALPHA", sig: "s", result: boolean, cost: 10, bind: bindEvery(func(c byte) bool { return (c|0x20)-'a' < 26 })},
		{name: "IS_DIGIT", sig: "s", result: boolean, cost: 10, bind: bindEvery(func(c byte) bool { return c-'0' < 10 })},
		{name: "IS_DECIMAL", sig: "s", result: boolean, cost: 30, bind: bindCount(func(b []byte) int64 {
			_, err := row.ParseFloat(b, 64)
			return bit(err == nil)
		})},
	}
}

// chosen takes the different elements of the first list that are, or are not, in the second.
func (l *listEditor) chosen(vs []row.List, in bool) {
	var x, y row.Vector
	for k := range vs[0].Len() {
		x.Truncate()
		vs[0].AppendTo(&x, k)
		found := false
		for j := range vs[1].Len() {
			y.Truncate()
			vs[1].AppendTo(&y, j)
			found = found || l.same(&x, 0, &y, 0)
		}
		l.v.Seal(l.n)
		for j := range l.n {
			if l.same(&l.v, j, &x, 0) {
				found = !in
			}
		}
		if found == in {
			l.take(&vs[0], k)
		}
	}
}

// bindArraySort is ARRAY_SORT(a[, ascending[, nulls first]]): NULLs come first when ascending, last otherwise.
func bindArraySort(c *Call, _ *Settings) (kernel, error) {
	elem := *c.T.Elem
	if ordered, _ := comparable(elem); !ordered {
		return nil, errs.New(errs.SQLTypeMismatch, "values of %s have no order", elem.Nullable())
	}
	compare := comparer(elem)
	var v row.Vector
	var order []int32
	return func(f *frame) {
		f.each(func(i int) {
			ascending := len(f.in) < 2 || f.in[1].Int64[i] != 0
			nullsFirst := ascending
			if len(f.in) > 2 {
				nullsFirst = f.in[2].Int64[i] != 0
			}
			l := row.ReadList(elem, f.in[0].Bytes(i))
			v.Truncate()
			order = order[:0]
			for k := range l.Len() {
				l.AppendTo(&v, k)
				order = append(order, int32(k))
			}
			v.Seal(l.Len())
			slices.SortStableFunc(order, func(a, b int32) int {
				an, bn := v.Nulls.Is(int(a)), v.Nulls.Is(int(b))
				switch {
				case an && bn:
					return 0
				case an == bn:
					d := compare(&v, int(a), &v, int(b))
					if !ascending {
						d = -d
					}
					return d
				case an == nullsFirst:
					return -1
				}
				return 1
			})
			off := len(f.heap)
			f.heap = row.AppendList(f.heap, elem, &v, order, 0)
			f.put(i, off)
		})
	}, nil
}

func bindMapEntries(c *Call, _ *Settings) (kernel, error) {
	key, value := row.MapTypes(c.Args[0].Type())
	codec := row.NewCodec([]row.Type{key, value})
	var k, v, entries row.Vector
	return func(f *frame) {
		f.each(func(i int) {
			kb, vb := row.SplitMap(f.in[0].Bytes(i))
			keys, values := row.ReadList(key, kb), row.ReadList(value, vb)
			entries.Truncate()
			for j := range keys.Len() {
				k.Truncate()
				v.Truncate()
				keys.AppendTo(&k, j)
				values.AppendTo(&v, j)
				off := len(entries.Heap)
				entries.Heap = codec.AppendColumns(entries.Heap, []*row.Vector{&k, &v}, 0)
				entries.Spans = append(entries.Spans, row.Span{Off: uint32(off), Len: uint32(len(entries.Heap) - off)})
			}
			off := len(f.heap)
			f.heap = row.AppendList(f.heap, *c.T.Elem, &entries, nil, keys.Len())
			f.put(i, off)
		})
	}, nil
}

// bindStrToMap reads a=1,b=2; the separators may be others. A key without a value has NULL; of equal keys the last counts.
func bindStrToMap(c *Call, _ *Settings) (kernel, error) {
	t := kind(row.String)
	var keys, values row.Vector
	return func(f *frame) {
		f.each(func(i int) {
			b, list, pair := f.in[0].Bytes(i), []byte(","), []byte("=")
			if len(f.in) > 1 {
				list = f.in[1].Bytes(i)
			}
			if len(f.in) > 2 {
				pair = f.in[2].Bytes(i)
			}
			keys.Truncate()
			values.Truncate()
			parts := [][]byte{b}
			if len(list) > 0 {
				parts = bytes.Split(b, list)
			}
			n := 0
			for p, part := range parts {
				key, value, found := part, []byte(nil), false
				if len(pair) > 0 {
					key, value, found = bytes.Cut(part, pair)
				}
				later := slices.ContainsFunc(parts[p+1:], func(o []byte) bool {
					k := o
					if len(pair) > 0 {
						k, _, _ = bytes.Cut(o, pair)
					}
					return bytes.Equal(k, key)
				})
				if later {
					continue
				}
				keys.AppendBytes(key)
				if found {
					values.AppendBytes(value)
				} else {
					values.AppendNull(row.LayoutBytes)
				}
				n++
			}
			values.Seal(n)
			off := len(f.heap)
			f.heap = row.AppendMap(f.heap, row.AppendList(nil, t, &keys, nil, n), row.AppendList(nil, t, &values, nil, n))
			f.put(i, off)
		})
	}, nil
}

// resolveElt is ELT(n, a, b, ..): the n-th of the texts, counted from 1, else NULL.
func resolveElt(f *Function, args []Expr) (Expr, error) {
	out, ok := f.match(args)
	if !ok || len(args) < 2 {
		return nil, f.mismatch(args)
	}
	var branches []Expr
	for k, e := range out[1:] {
		eq, err := Resolve("=", []Expr{out[0], Int(kind(row.Int), int64(k+1))})
		if err != nil {
			return nil, err
		}
		branches = append(branches, eq, e)
	}
	return Resolve("CASE", append(branches, NullOf(kind(row.String))))
}

// bindEvery tells whether a text is not empty and all of its bytes pass.
func bindEvery(pass func(c byte) bool) func(*Call, *Settings) (kernel, error) {
	return bindCount(func(b []byte) int64 {
		for _, c := range b {
			if !pass(c) {
				return 0
			}
		}
		return bit(len(b) > 0)
	})
}
