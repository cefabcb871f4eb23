package json

import (
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
)

// Encoder appends rows as lines.
type Encoder struct {
	opts   Options
	schema row.Schema
	names  [][]byte // "name":
}

var _ format.Encoder = (*Encoder)(nil)

// NewEncoder returns an encoder of all columns.
func (f *Format) NewEncoder() *Encoder {
	e := &Encoder{opts: f.opts, schema: f.schema}
	for _, f := range f.schema {
		e.names = append(e.names, append(appendString(nil, []byte(f.Name)), ':'))
	}
	return e
}

// AppendHeader appends nothing.
func (e *Encoder) AppendHeader(dst []byte) []byte { return dst }

// AppendRows appends the rows of b that count.
func (e *Encoder) AppendRows(dst []byte, b *row.Batch) ([]byte, error) {
	begin := len(dst)
	for k := range b.Rows() {
		i := b.At(k)
		dst = append(dst, '{')
		first := true
		for c := range e.schema {
			v := b.Cols[c]
			null := v.Nulls.Is(i)
			if null && e.opts.IgnoreNullFields {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, e.names[c]...)
			if null {
				dst = append(dst, "null"...)
				continue
			}
			var err error
			if dst, err = e.appendValue(dst, e.schema[c].Type, v, i); err != nil {
				return dst[:begin], errs.New(errs.TargetRejected, "json cannot hold a value of column %s: %w", e.schema[c].Name, err).
					WithHint("set 'json.map-null-key.mode' = 'DROP' to leave such entries out")
			}
		}
		dst = append(dst, "}\n"...)
	}
	return dst, nil
}

func (e *Encoder) appendValue(dst []byte, t row.Type, v *row.Vector, i int) ([]byte, error) {
	switch t.Kind {
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		return strconv.AppendInt(dst, v.Int64[i], 10), nil
	case row.Boolean:
		return strconv.AppendBool(dst, v.Int64[i] != 0), nil
	case row.Float, row.Double:
		f := v.Float64[i]
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(row.AppendText(append(dst, '"'), t, v, i, nil), '"'), nil
		}
		return row.AppendText(dst, t, v, i, nil), nil
	case row.Decimal:
		return row.AppendText(dst, t, v, i, nil), nil
	case row.Numeric:
		if b := v.Bytes(i); len(b) > 0 && (b[len(b)-1] < '0' || b[len(b)-1] > '9') { // NaN and the infinities
			return appendString(dst, b), nil
		}
		return append(dst, v.Bytes(i)...), nil
	case row.JSON:
		return appendLine(dst, v.Bytes(i)), nil
	case row.String, row.Foreign:
		return appendString(dst, v.Bytes(i)), nil
	case row.Bytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.Bytes(i)), '"'), nil
	case row.Timestamp, row.TimestampLTZ:
		start := len(dst) + 1
		dst = row.AppendText(append(dst, '"'), t, v, i, time.UTC)
		if e.opts.ISO {
			for k := start; k < len(dst); k++ {
				if dst[k] == ' ' {
					dst[k] = 'T'
				}
			}
		}
		if t.Kind == row.TimestampLTZ {
			dst = append(dst, 'Z')
		}
		return append(dst, '"'), nil
	case row.Array:
		return e.appendArray(dst, *t.Elem, v.Bytes(i))
	case row.Map, row.Multiset:
		return e.appendMap(dst, t, v.Bytes(i))
	case row.Struct:
		return e.appendStruct(dst, t, v.Bytes(i))
	}
	return append(row.AppendText(append(dst, '"'), t, v, i, nil), '"'), nil
}

func (e *Encoder) appendArray(dst []byte, elem row.Type, b []byte) ([]byte, error) {
	l := row.ReadList(elem, b)
	dst = append(dst, '[')
	var one row.Vector
	var err error
	for n := range l.Len() {
		if n > 0 {
			dst = append(dst, ',')
		}
		if l.IsNull(n) {
			dst = append(dst, "null"...)
			continue
		}
		one.Truncate()
		l.AppendTo(&one, n)
		if dst, err = e.appendValue(dst, elem, &one, 0); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func (e *Encoder) appendMap(dst []byte, t row.Type, b []byte) ([]byte, error) {
	kt, vt := row.MapTypes(t)
	kb, vb := row.SplitMap(b)
	keys, values := row.ReadList(kt, kb), row.ReadList(vt, vb)
	dst = append(dst, '{')
	first := true
	var one row.Vector
	var err error
	for n := range keys.Len() {
		if keys.IsNull(n) {
			if e.opts.NullKey == DropNullKey {
				continue
			}
			return dst, errors.New("a key of the map is NULL")
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		one.Truncate()
		keys.AppendTo(&one, n)
		if kt.Kind == row.String {
			dst = appendString(dst, one.Bytes(0))
		} else {
			dst = append(row.AppendText(append(dst, '"'), kt, &one, 0, time.UTC), '"')
		}
		dst = append(dst, ':')
		if values.IsNull(n) {
			dst = append(dst, "null"...)
			continue
		}
		one.Truncate()
		values.AppendTo(&one, n)
		if dst, err = e.appendValue(dst, vt, &one, 0); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (e *Encoder) appendStruct(dst []byte, t row.Type, b []byte) ([]byte, error) {
	codec := row.NewCodec(row.Schema(t.Fields).Types())
	dst = append(dst, '{')
	first := true
	var one row.Vector
	var err error
	for n, f := range t.Fields {
		null := codec.IsNull(b, n)
		if null && e.opts.IgnoreNullFields {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendString(dst, []byte(f.Name)), ':')
		if null {
			dst = append(dst, "null"...)
			continue
		}
		one.Truncate()
		codec.Decode(&one, 0, n, [][]byte{b})
		if dst, err = e.appendValue(dst, f.Type, &one, 0); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendString appends b as a string in quotes. What is not UTF-8 becomes U+FFFD.
func appendString(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(b) > 0 {
		n := format.Plain(b)
		dst, b = append(dst, b[:n]...), b[n:]
		if len(b) == 0 {
			break
		}
		switch c := b[0]; {
		case c == '"' || c == '\\':
			dst, b = append(dst, '\\', c), b[1:]
		case c == '\n':
			dst, b = append(dst, '\\', 'n'), b[1:]
		case c == '\t':
			dst, b = append(dst, '\\', 't'), b[1:]
		case c == '\r':
			dst, b = append(dst, '\\', 'r'), b[1:]
		case c < 0x20:
			dst, b = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15]), b[1:]
		default:
			r, size := utf8.DecodeRune(b)
			dst, b = utf8.AppendRune(dst, r), b[size:]
		}
	}
	return append(dst, '"')
}

// appendLine appends JSON text without the line breaks that it may have between its tokens.
func appendLine(dst, b []byte) []byte {
	for _, c := range b {
		if c != '\n' && c != '\r' { // inside of strings they cannot stand
			dst = append(dst, c)
		}
	}
	return dst
}
