package expr

import (
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// This file makes arrays, maps and rows, and takes them apart.

func resolveArray(f *Function, args []Expr) (Expr, error) {
	elem := kind(row.Null)
	if len(args) > 0 {
		var err error
		if args, elem, err = unify(f.name, args); err != nil {
			return nil, err
		}
	}
	return f.typed(args, row.Type{Kind: row.Array, Elem: &elem}), nil
}

func bindArray(c *Call, _ *Settings) (kernel, error) {
	elem := *c.T.Elem
	var v row.Vector
	return func(f *frame) {
		f.each(func(i int) {
			v.Truncate()
			for _, a := range f.in {
				appendValue(&v, elem.Layout(), a, i)
			}
			v.Seal(len(f.in))
			off := len(f.heap)
			f.heap = row.AppendList(f.heap, elem, &v, nil, len(f.in))
			f.put(i, off)
		})
	}, nil
}

func resolveMap(f *Function, args []Expr) (Expr, error) {
	if len(args)%2 != 0 || len(args) == 0 {
		return nil, takes(f, "keys and values in turn")
	}
	var keys, values []Expr
	for i := 0; i < len(args); i += 2 {
		keys, values = append(keys, args[i]), append(values, args[i+1])
	}
	keys, key, err := unify("the keys of MAP", keys)
	if err != nil {
		return nil, err
	}
	values, value, err := unify("the values of MAP", values)
	if err != nil {
		return nil, err
	}
	all := make([]Expr, 0, len(args))
	for i := range keys {
		all = append(all, keys[i], values[i])
	}
	return f.typed(all, row.Type{Kind: row.Map, Key: &key, Elem: &value}), nil
}

// bindMapConstructor keeps the last value of a key that comes twice, at the key's first place.
func bindMapConstructor(c *Call, _ *Settings) (kernel, error) {
	key, value := row.MapTypes(c.T)
	compare := comparer(key)
	var k, v row.Vector
	var keys, values []byte
	return func(f *frame) {
		f.each(func(i int) {
			k.Truncate()
			v.Truncate()
			n := 0
			last := make([]int, 0, 16) // which argument holds each key's value
			for a := 0; a < len(f.in); a += 2 {
				at := -1
				for j := range last {
					other := f.in[last[j]]
					if other.Nulls.Is(i) && f.in[a].Nulls.Is(i) || !other.Nulls.Is(i) && !f.in[a].Nulls.Is(i) && compare(other, i, f.in[a], i) == 0 {
						at = j
					}
				}
				if at >= 0 {
					last[at] = a
				} else {
					last = append(last, a)
				}
			}
			for _, a := range last {
				appendValue(&k, key.Layout(), f.in[a], i)
				appendValue(&v, value.Layout(), f.in[a+1], i)
				n++
			}
			k.Seal(n)
			v.Seal(n)
			keys = row.AppendList(keys[:0], key, &k, nil, n)
			values = row.AppendList(values[:0], value, &v, nil, n)
			off := len(f.heap)
			f.heap = row.AppendMap(f.heap, keys, values)
			f.put(i, off)
		})
	}, nil
}

func resolveRow(f *Function, args []Expr) (Expr, error) {
	t := row.Type{Kind: row.Struct}
	for i, a := range args {
		t.Fields = append(t.Fields, row.Field{Name: "EXPR$" + strconv.Itoa(i), Type: a.Type()})
	}
	return f.typed(args, t), nil
}

func bindRow(c *Call, _ *Settings) (kernel, error) {
	codec := row.NewCodec(row.Schema(c.T.Fields).Types())
	return func(f *frame) {
		f.each(func(i int) {
			off := len(f.heap)
			f.heap = codec.AppendColumns(f.heap, f.in, i)
			f.put(i, off)
		})
	}, nil
}

// resolveRowField is r.f.
func resolveRowField(f *Function, args []Expr) (Expr, error) {
	if len(args) != 2 || args[0].Type().Kind != row.Struct {
		return nil, f.mismatch(args)
	}
	name, ok := constText(args[1])
	if !ok {
		return nil, f.mismatch(args)
	}
	fields := row.Schema(args[0].Type().Fields)
	i := fields.Index(string(name))
	if i < 0 {
		var names []string
		for k, fd := range fields {
			names = append(names, fd.Name)
			if i < 0 && strings.EqualFold(fd.Name, string(name)) {
				i = k
			}
		}
		if i < 0 {
			return nil, errs.New(errs.SQLUnknownName, "%s has no field %s", args[0], name).WithHint("its fields are %s", strings.Join(names, ", "))
		}
	}
	// Which field it is stands in the name alone, so that the expression's text is what a user wrote.
	t := fields[i].Type
	c := f.typed([]Expr{args[0], Str(fields[i].Name)}, t)
	c.T.NotNull = t.NotNull && args[0].Type().NotNull
	return c, nil
}

func bindRowField(c *Call, _ *Settings) (kernel, error) {
	fields := row.Schema(c.Args[0].Type().Fields)
	k := fields.Index(c.Args[1].(*Const).Text())
	codec, layout := row.NewCodec(fields.Types()), c.T.Layout()
	var v row.Vector
	one := make([][]byte, 1)
	return func(f *frame) {
		f.each(func(i int) {
			one[0] = f.in[0].Bytes(i)
			if codec.IsNull(one[0], k) {
				f.null(i)
				return
			}
			v.Truncate()
			codec.Decode(&v, 0, k, one)
			f.copyValue(i, layout, &v, 0)
		})
	}, nil
}

// resolveItem is a[i] of an array, counted from 1, and m[k] of a map.
func resolveItem(f *Function, args []Expr) (Expr, error) {
	if len(args) == 2 {
		switch t := args[0].Type(); t.Kind {
		case row.Array:
			if i, ok := matchArg('i', args[1]); ok {
				return f.typed([]Expr{args[0], i}, *t.Elem), nil
			}
		case row.Map:
			if k, err := Coerce(args[1], *t.Key); err == nil {
				return f.typed([]Expr{args[0], k}, *t.Elem), nil
			}
		}
	}
	return nil, f.mismatch(args)
}

func bindItem(c *Call, _ *Settings) (kernel, error) {
	t := c.Args[0].Type()
	if t.Kind == row.Array {
		return func(f *frame) {
			f.each(func(i int) {
				l := row.ReadList(*t.Elem, f.in[0].Bytes(i))
				switch k := f.in[1].Int64[i]; {
				case k < 1:
					f.fail(i, errs.EvalArgument, "elements are counted from 1")
				case k > int64(l.Len()):
					f.null(i)
				default:
					f.element(i, &l, int(k-1))
				}
			})
		}, nil
	}
	key, value := row.MapTypes(t)
	compare := comparer(key)
	var v row.Vector
	return func(f *frame) {
		f.each(func(i int) {
			kb, vb := row.SplitMap(f.in[0].Bytes(i))
			keys, values := row.ReadList(key, kb), row.ReadList(value, vb)
			for k := range keys.Len() {
				if keys.IsNull(k) {
					continue
				}
				v.Truncate()
				keys.AppendTo(&v, k)
				if compare(&v, 0, f.in[1], i) == 0 {
					f.element(i, &values, k)
					return
				}
			}
			f.null(i)
		})
	}, nil
}
