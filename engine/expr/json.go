package expr

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

func jsonFunctions() []*Function {
	return []*Function{
		{name: "IS JSON", hidden: true, sig: "s?k", result: boolean, bind: bindIsJSON, cost: 100, print: func(c *Call) string {
			s := "(" + c.Args[0].String() + " IS JSON"
			if len(c.Args) > 1 {
				s += " " + c.Args[1].(*Const).Text()
			}
			return s + ")"
		}},
		{name: "JSON_EXISTS", sig: "ss?k", result: boolean, nullable: true, faults: true, bind: bindJSONExists, cost: 150},
		{name: "JSON_VALUE", resolve: resolveJSONValue, faults: true, bind: bindJSONValue, nulls: true, cost: 150},
		{name: "JSON_QUERY", sig: "ss?kkk", result: text, nullable: true, faults: true, bind: bindJSONQuery, cost: 200},
		{name: "JSON_STRING", sig: "x", result: text, bind: func(c *Call, s *Settings) (kernel, error) {
			w := newJSONWriter(c.Args[0], s.Zone)
			return func(f *frame) {
				f.each(func(i int) {
					off := len(f.heap)
					f.heap = w.append(f.heap, f.in[0], i)
					f.put(i, off)
				})
			}, nil
		}, cost: 80},
		{name: "JSON_QUOTE", sig: "s", result: text, bind: bindMap(appendJSONQuoted), cost: 40},
		{name: "JSON_UNQUOTE", sig: "s", result: text, cost: 40, bind: bindMap(func(dst, b []byte) []byte {
			if len(b) >= 2 && b[0] == '"' && json.Valid(b) {
				return appendJSONText(dst, b[1:len(b)-1])
			}
			return append(dst, b...)
		})},
		{name: "JSON_OBJECT", sig: "kx*", resolve: resolveJSONConstructor, bind: bindJSONObject, nulls: true, notNull: true, faults: true, cost: 200},
		{name: "JSON_ARRAY", sig: "kx*", resolve: resolveJSONConstructor, bind: bindJSONArray, nulls: true, notNull: true, cost: 150},
	}
}

func bindIsJSON(c *Call, _ *Settings) (kernel, error) {
	what := "VALUE"
	if len(c.Args) > 1 {
		what = c.Args[1].(*Const).Text()
	}
	if what != "VALUE" && what != "SCALAR" && what != "ARRAY" && what != "OBJECT" {
		return nil, errs.New(errs.SQLTypeMismatch, "IS JSON takes VALUE, SCALAR, ARRAY or OBJECT, not %s", what)
	}
	return func(f *frame) {
		f.each(func(i int) {
			b := f.in[0].Bytes(i)
			ok := json.Valid(b)
			if ok && what != "VALUE" {
				switch b[skipSpace(b, 0)] {
				case '[':
					ok = what == "ARRAY"
				case '{':
					ok = what == "OBJECT"
				default:
					ok = what == "SCALAR"
				}
			}
			f.out.Int64[i] = bit(ok)
		})
	}, nil
}

// jsonPathOf gives the path of an argument.
type jsonPathOf struct {
	constant *jsonPath
	last     []byte
	compiled *jsonPath
	spans    []jsonSpan
}

func newJSONPathOf(e Expr) (*jsonPathOf, error) {
	p := &jsonPathOf{}
	if b, ok := constText(e); ok {
		var err error
		if p.constant, err = parseJSONPath(string(b)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// find gives the values of argument 0 at the path of argument 1. ok is false if it is not JSON or strict mode found an
// error; valid is false if the path itself is none, which has been told.
func (p *jsonPathOf) find(f *frame, i int) (spans []jsonSpan, ok, valid bool) {
	path := p.constant
	if path == nil {
		b := f.in[1].Bytes(i)
		if p.compiled == nil || !bytes.Equal(b, p.last) {
			c, err := parseJSONPath(string(b))
			if err != nil {
				f.fail(i, errs.EvalArgument, err.(*errs.Error).Message)
				return nil, false, false
			}
			p.last, p.compiled = append(p.last[:0], b...), c
		}
		path = p.compiled
	}
	b := f.in[0].Bytes(i)
	if !json.Valid(b) {
		return nil, false, true
	}
	p.spans, ok = path.find(b, p.spans[:0])
	return p.spans, ok, true
}

func (f *frame) notJSON(i int) {
	f.fail(i, errs.EvalArgument, quoteShort(f.in[0].Bytes(i))+" is not JSON, or has nothing fit at the path")
}

func bindJSONExists(c *Call, _ *Settings) (kernel, error) {
	p, err := newJSONPathOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	onError := "FALSE"
	if len(c.Args) > 2 {
		onError = c.Args[2].(*Const).Text()
	}
	return func(f *frame) {
		f.each(func(i int) {
			spans, ok, valid := p.find(f, i)
			switch {
			case !valid:
			case ok:
				f.out.Int64[i] = bit(len(spans) > 0)
			case onError == "ERROR":
				f.notJSON(i)
			case onError == "UNKNOWN":
				f.null(i)
			default:
				f.out.Int64[i] = bit(onError == "TRUE")
			}
		})
	}, nil
}

// resolveJSONValue brings the arguments into the form (json, path, onEmpty, default, onError, default).
func resolveJSONValue(f *Function, args []Expr) (Expr, error) {
	if len(args) < 2 || len(args) > 7 {
		return nil, takes(f, "a JSON text and a path")
	}
	js, ok1 := matchArg('s', args[0])
	path, ok2 := matchArg('s', args[1])
	if !ok1 || !ok2 {
		return nil, f.mismatch(args)
	}
	t := kind(row.String)
	if len(args) > 2 && args[2].Type().Kind != row.Null {
		t = args[2].Type().Nullable()
	}
	out := []Expr{js, path, Str("NULL"), NullOf(t), Str("NULL"), NullOf(t)}
	for k := 3; k < len(args); k++ {
		if (k-3)%2 == 0 {
			word, ok := constText(args[k])
			if !ok || string(word) != "NULL" && string(word) != "ERROR" && string(word) != "DEFAULT" {
				return nil, takes(f, "NULL, ERROR or DEFAULT ON EMPTY and ON ERROR")
			}
			out[k-1] = args[k]
			continue
		}
		e, err := Coerce(args[k], t)
		if err != nil {
			return nil, err
		}
		out[k-1] = e
	}
	return f.typed(out, t), nil
}

func bindJSONValue(c *Call, s *Settings) (kernel, error) {
	p, err := newJSONPathOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	onEmpty, onError := c.Args[2].(*Const).Text(), c.Args[4].(*Const).Text()
	t, layout := c.T.Nullable(), c.T.Layout()
	var v row.Vector
	var text []byte
	return func(f *frame) {
		other := func(i int, how string, deflt int) {
			switch {
			case how == "ERROR":
				f.notJSON(i)
			case how == "NULL" || f.in[deflt].Nulls.Is(i):
				f.null(i)
			default:
				f.copyValue(i, layout, f.in[deflt], i)
			}
		}
		f.each(func(i int) {
			if f.in[0].Nulls.Is(i) || f.in[1].Nulls.Is(i) {
				f.null(i)
				return
			}
			spans, ok, valid := p.find(f, i)
			b := f.in[0].Bytes(i)
			switch {
			case !valid:
			case !ok || len(spans) > 1 || len(spans) == 1 && (b[spans[0].begin] == '{' || b[spans[0].begin] == '['):
				other(i, onError, 5)
			case len(spans) == 0:
				other(i, onEmpty, 3)
			default:
				x := b[spans[0].begin:spans[0].end]
				if string(x) == "null" {
					f.null(i)
					return
				}
				if x[0] == '"' {
					text = appendJSONText(text[:0], x[1:len(x)-1])
					x = text
				}
				v.Truncate()
				if row.ParseText(&v, t, x, s.Zone) != nil {
					other(i, onError, 5)
					return
				}
				f.copyValue(i, layout, &v, 0)
			}
		})
	}, nil
}

// bindJSONQuery gives an object or array as compact JSON.
func bindJSONQuery(c *Call, _ *Settings) (kernel, error) {
	p, err := newJSONPathOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	wrapper, onEmpty, onError := "WITHOUT", "NULL", "NULL"
	for k, to := range []*string{&wrapper, &onEmpty, &onError} {
		if len(c.Args) > k+2 {
			*to = c.Args[k+2].(*Const).Text()
		}
	}
	var buf bytes.Buffer
	return func(f *frame) {
		other := func(i int, how string) {
			off := len(f.heap)
			switch how {
			case "ERROR":
				f.notJSON(i)
			case "EMPTY ARRAY":
				f.heap = append(f.heap, "[]"...)
				f.put(i, off)
			case "EMPTY OBJECT":
				f.heap = append(f.heap, "{}"...)
				f.put(i, off)
			default:
				f.null(i)
			}
		}
		f.each(func(i int) {
			spans, ok, valid := p.find(f, i)
			if !valid {
				return
			}
			b := f.in[0].Bytes(i)
			structured := len(spans) == 1 && (b[spans[0].begin] == '{' || b[spans[0].begin] == '[')
			wrap := wrapper == "UNCONDITIONAL" || wrapper == "CONDITIONAL" && !structured
			switch {
			case !ok || len(spans) > 0 && !structured && !wrap:
				other(i, onError)
				return
			case len(spans) == 0:
				other(i, onEmpty)
				return
			}
			off := len(f.heap)
			if wrap {
				f.heap = append(f.heap, '[')
			}
			for k, s := range spans {
				if k > 0 {
					f.heap = append(f.heap, ',')
				}
				buf.Reset()
				if json.Compact(&buf, b[s.begin:s.end]) == nil {
					f.heap = append(f.heap, buf.Bytes()...)
				}
			}
			if wrap {
				f.heap = append(f.heap, ']')
			}
			f.put(i, off)
		})
	}, nil
}

func resolveJSONConstructor(f *Function, args []Expr) (Expr, error) {
	if len(args) == 0 {
		return nil, takes(f, "NULL or ABSENT ON NULL and values")
	}
	word, ok := constText(args[0])
	if !ok || string(word) != "NULL" && string(word) != "ABSENT" {
		return nil, takes(f, "NULL or ABSENT ON NULL and values")
	}
	out := append([]Expr(nil), args...)
	if f.name == "JSON_OBJECT" {
		if len(args)%2 == 0 {
			return nil, takes(f, "keys and values in turn")
		}
		for k := 1; k < len(out); k += 2 {
			if out[k], ok = matchArg('s', out[k]); !ok {
				return nil, f.mismatch(args)
			}
		}
	}
	return f.typed(out, kind(row.String)), nil
}

// jsonWriter writes values of a type as JSON.
type jsonWriter struct {
	t      row.Type
	raw    bool // the text is JSON already
	zone   *time.Location
	elem   *jsonWriter
	key    *jsonWriter
	fields []*jsonWriter
	codec  *row.Codec
	v      row.Vector
	text   []byte
}

// newJSONWriter looks at the expression as well: what JSON_OBJECT and JSON_ARRAY made is not quoted again.
func newJSONWriter(e Expr, zone *time.Location) *jsonWriter {
	w := jsonWriterOf(e.Type(), zone)
	if c, ok := e.(*Call); ok && (c.Fn.name == "JSON_OBJECT" || c.Fn.name == "JSON_ARRAY" || c.Fn.name == "JSON_QUERY") {
		w.raw = true
	}
	return w
}

func jsonWriterOf(t row.Type, zone *time.Location) *jsonWriter {
	w := &jsonWriter{t: t, zone: zone, raw: t.Kind == row.JSON}
	switch t.Kind {
	case row.Array:
		w.elem = jsonWriterOf(*t.Elem, zone)
	case row.Map, row.Multiset:
		key, value := row.MapTypes(t)
		w.key, w.elem = jsonWriterOf(key, zone), jsonWriterOf(value, zone)
	case row.Struct:
		w.codec = row.NewCodec(row.Schema(t.Fields).Types())
		for _, f := range t.Fields {
			w.fields = append(w.fields, jsonWriterOf(f.Type, zone))
		}
	}
	return w
}

func (w *jsonWriter) append(dst []byte, v *row.Vector, i int) []byte {
	if v.Nulls.Is(i) || w.t.Kind == row.Null {
		return append(dst, "null"...)
	}
	switch w.t.Kind {
	case row.Boolean:
		if v.Int64[i] != 0 {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt, row.Decimal, row.Numeric:
		return row.AppendText(dst, w.t, v, i, nil)
	case row.Float, row.Double:
		if x := v.Float64[i]; math.IsNaN(x) || math.IsInf(x, 0) {
			break // JSON has no such numbers
		}
		return row.AppendText(dst, w.t, v, i, nil)
	case row.Array:
		return w.elem.appendList(append(dst, '['), row.ReadList(w.elem.t, v.Bytes(i)), nil, row.List{})
	case row.Map, row.Multiset:
		kb, vb := row.SplitMap(v.Bytes(i))
		return w.elem.appendList(append(dst, '{'), row.ReadList(w.elem.t, vb), w.key, row.ReadList(w.key.t, kb))
	case row.Struct:
		one := [][]byte{v.Bytes(i)}
		dst = append(dst, '{')
		for k, f := range w.fields {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSONQuoted(dst, []byte(w.t.Fields[k].Name)), ':')
			w.v.Truncate()
			w.codec.Decode(&w.v, 0, k, one)
			dst = f.append(dst, &w.v, 0)
		}
		return append(dst, '}')
	case row.Bytes:
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes(i))
		return append(dst, '"')
	}
	if w.raw {
		return append(dst, v.Bytes(i)...)
	}
	w.text = row.AppendText(w.text[:0], w.t, v, i, w.zone)
	return appendJSONQuoted(dst, w.text)
}

// appendList writes the elements and the closing bracket; with keys, members.
func (w *jsonWriter) appendList(dst []byte, l row.List, key *jsonWriter, keys row.List) []byte {
	for k := range l.Len() {
		if k > 0 {
			dst = append(dst, ',')
		}
		if key != nil {
			w.v.Truncate()
			keys.AppendTo(&w.v, k)
			key.text = append(key.text[:0], "null"...)
			if !w.v.Nulls.Is(0) {
				key.text = row.AppendText(key.text[:0], key.t, &w.v, 0, w.zone)
			}
			dst = append(appendJSONQuoted(dst, key.text), ':')
		}
		w.v.Truncate()
		l.AppendTo(&w.v, k)
		v := w.v
		dst = w.append(dst, &v, 0)
	}
	if key != nil {
		return append(dst, '}')
	}
	return append(dst, ']')
}

func jsonWriters(c *Call, from int, s *Settings) []*jsonWriter {
	var ws []*jsonWriter
	for _, a := range c.Args[from:] {
		ws = append(ws, newJSONWriter(a, s.Zone))
	}
	return ws
}

func bindJSONObject(c *Call, s *Settings) (kernel, error) {
	absent := c.Args[0].(*Const).Text() == "ABSENT"
	ws := jsonWriters(c, 1, s)
	return func(f *frame) {
		f.each(func(i int) {
			off, first := len(f.heap), true
			f.heap = append(f.heap, '{')
			for k := 1; k < len(f.in); k += 2 {
				if f.in[k].Nulls.Is(i) {
					f.fail(i, errs.EvalArgument, "a key of JSON_OBJECT is NULL")
					return
				}
				if absent && f.in[k+1].Nulls.Is(i) {
					continue
				}
				if !first {
					f.heap = append(f.heap, ',')
				}
				first = false
				f.heap = append(appendJSONQuoted(f.heap, f.in[k].Bytes(i)), ':')
				f.heap = ws[k].append(f.heap, f.in[k+1], i)
			}
			f.heap = append(f.heap, '}')
			f.put(i, off)
		})
	}, nil
}

func bindJSONArray(c *Call, s *Settings) (kernel, error) {
	absent := c.Args[0].(*Const).Text() == "ABSENT"
	ws := jsonWriters(c, 1, s)
	return func(f *frame) {
		f.each(func(i int) {
			off, first := len(f.heap), true
			f.heap = append(f.heap, '[')
			for k, v := range f.in[1:] {
				if absent && v.Nulls.Is(i) {
					continue
				}
				if !first {
					f.heap = append(f.heap, ',')
				}
				first = false
				f.heap = ws[k].append(f.heap, v, i)
			}
			f.heap = append(f.heap, ']')
			f.put(i, off)
		})
	}, nil
}
