// Package formattest is what the tests of formats and of connectors that read and write them share: schemas written as
// text, rows printed, and rows made up.
package formattest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
)

// Schema reads "a INT NOT NULL, b ARRAY<STRING>". It panics where that is not a schema.
func Schema(text string) row.Schema {
	p := &parser{text: text}
	s := p.fields("")
	if p.text != "" {
		panic("formattest: " + p.text + " is left of " + text)
	}
	return s
}

type parser struct{ text string }

func (p *parser) word() string {
	p.text = strings.TrimLeft(p.text, " \n\t")
	i := 0
	for i < len(p.text) && (p.text[i] == '_' || p.text[i] >= '0' && p.text[i] <= '9' || p.text[i]|0x20 >= 'a' && p.text[i]|0x20 <= 'z') {
		i++
	}
	w := p.text[:i]
	p.text = strings.TrimLeft(p.text[i:], " \n\t")
	return w
}

func (p *parser) take(s string) bool {
	rest, ok := strings.CutPrefix(p.text, s)
	if ok {
		p.text = strings.TrimLeft(rest, " \n\t")
	}
	return ok
}

func (p *parser) fields(end string) row.Schema {
	var s row.Schema
	for {
		name := p.word()
		s = append(s, row.Field{Name: name, Type: p.typ()})
		if end != "" && p.take(end) || end == "" && p.text == "" {
			return s
		}
		if !p.take(",") {
			panic("formattest: expected a comma before " + p.text)
		}
	}
}

func (p *parser) typ() row.Type {
	kinds := map[string]row.Kind{"BOOLEAN": row.Boolean, "TINYINT": row.TinyInt, "SMALLINT": row.SmallInt, "INT": row.Int, "BIGINT": row.BigInt,
		"FLOAT": row.Float, "DOUBLE": row.Double, "DECIMAL": row.Decimal, "NUMERIC": row.Numeric, "STRING": row.String, "VARCHAR": row.String, "CHAR": row.String,
		"BYTES": row.Bytes, "DATE": row.Date, "TIME": row.Time, "TIMESTAMP": row.Timestamp, "TIMESTAMP_LTZ": row.TimestampLTZ, "MONTHS": row.IntervalMonths,
		"SECONDS": row.IntervalTime, "UUID": row.UUID, "JSON": row.JSON, "ARRAY": row.Array, "MAP": row.Map, "ROW": row.Struct}
	w := p.word()
	k, ok := kinds[w]
	if !ok {
		panic("formattest: no type " + w + p.text)
	}
	t := row.Type{Kind: k, Fixed: w == "CHAR"}
	if p.take("(") {
		_, _ = fmt.Sscan(p.word(), &t.Precision)
		if p.take(",") {
			_, _ = fmt.Sscan(p.word(), &t.Scale)
		}
		p.take(")")
	}
	if p.take("<") {
		switch k {
		case row.Array:
			e := p.typ()
			t.Elem = &e
			p.take(">")
		case row.Map:
			key := p.typ()
			p.take(",")
			e := p.typ()
			t.Key, t.Elem = &key, &e
			p.take(">")
		default:
			t.Fields = p.fields(">")
		}
	}
	if rest := p.text; p.word() == "NOT" && p.word() == "NULL" {
		t.NotNull = true
	} else {
		p.text = rest
	}
	return t
}

// Lines prints the rows that count, a line each; a weight that is not 1 stands in front.
func Lines(s row.Schema, b *row.Batch) []string {
	var out []string
	for k := range b.Rows() {
		i := b.At(k)
		var line []byte
		if w := b.Weight(i); w != 1 {
			line = fmt.Appendf(line, "%+d ", w)
		}
		for c, f := range s {
			if c > 0 {
				line = append(line, " | "...)
			}
			if b.Cols[c].Nulls.Is(i) {
				line = append(line, "NULL"...)
				continue
			}
			line = row.AppendText(line, f.Type, b.Cols[c], i, nil)
		}
		out = append(out, strings.ReplaceAll(string(line), "\n", `\n`))
	}
	return out
}

// Append appends a made-up value of the type; strings hold what formats trip over.
func Append(r *rand.Rand, v *row.Vector, t row.Type) {
	if !t.NotNull && r.IntN(6) == 0 {
		v.AppendNull(t.Layout())
		return
	}
	low, high := row.IntegerRange(t.Kind)
	switch t.Kind {
	case row.Boolean:
		v.Int64 = append(v.Int64, r.Int64N(2))
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		x := int64(r.Uint64())
		if t.Kind != row.BigInt {
			x = low + r.Int64N(high-low+1)
		}
		v.Int64 = append(v.Int64, x>>r.IntN(64))
	case row.Float:
		v.Float64 = append(v.Float64, float64(float32(r.NormFloat64()*math.Pow(10, float64(r.IntN(20)-10)))))
	case row.Double:
		v.Float64 = append(v.Float64, r.NormFloat64()*math.Pow(10, float64(r.IntN(20)-10)))
	case row.Decimal:
		d := row.Int128From(r.Int64N(1 << 30))
		for range t.Precision - 10 {
			d, _ = d.Add(d)
		}
		if t.Precision < 10 {
			d = row.Int128From(r.Int64N(int64(math.Pow10(t.Precision))))
		}
		if r.IntN(2) == 0 {
			d = d.Neg()
		}
		v.Decimal = append(v.Decimal, d)
	case row.Date:
		v.Int64 = append(v.Int64, r.Int64N(40_000)-10_000)
	case row.Time:
		unit := int64(math.Pow10(9 - t.Precision))
		v.Int64 = append(v.Int64, r.Int64N(86_400e9)/unit*unit)
	case row.Timestamp, row.TimestampLTZ:
		x, err := row.TimestampOf(r.Int64N(40_000)-10_000, r.Int64N(86_400e9), t.Precision)
		if err != nil {
			panic(err)
		}
		v.Int64 = append(v.Int64, x)
	case row.IntervalMonths:
		v.Int64 = append(v.Int64, r.Int64N(1000)-500)
	case row.IntervalTime:
		v.Int64 = append(v.Int64, r.Int64N(1e12)-5e11)
	case row.Numeric:
		v.AppendString(fmt.Sprintf("%d.%03d", r.Int64N(1e9), r.IntN(1000)))
	case row.UUID:
		b := make([]byte, 16)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v.AppendBytes(b)
	case row.JSON:
		v.AppendString([]string{`{"a":[1,2,{"b":null}]}`, `"x\"y,;\n"`, `12.5`, `[]`}[r.IntN(4)])
	case row.Bytes:
		b := make([]byte, r.IntN(9))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v.AppendBytes(b)
	case row.Array:
		l, n := &row.Vector{}, r.IntN(4)
		for range n {
			Append(r, l, *t.Elem)
		}
		l.Seal(n)
		v.AppendBytes(row.AppendList(nil, *t.Elem, l, nil, n))
	case row.Map:
		kv, vv, n := &row.Vector{}, &row.Vector{}, r.IntN(3)
		for i := range n {
			kv.AppendString(fmt.Sprintf("key\t%d", i))
			Append(r, vv, *t.Elem)
		}
		vv.Seal(n)
		v.AppendBytes(row.AppendMap(nil, row.AppendList(nil, *t.Key, kv, nil, n), row.AppendList(nil, *t.Elem, vv, nil, n)))
	case row.Struct:
		cols := make([]*row.Vector, len(t.Fields))
		for i, f := range t.Fields {
			cols[i] = &row.Vector{}
			Append(r, cols[i], f.Type)
			cols[i].Seal(1)
		}
		v.AppendBytes(row.NewCodec(row.Schema(t.Fields).Types()).AppendColumns(nil, cols, 0))
	default:
		v.AppendString(text(r, t))
	}
}

func text(r *rand.Rand, t row.Type) string {
	words := []string{"a", "Zürich", `"`, `""`, `\`, ",", ";", "\n", "\r\n", "\t", " ", "#", "null", "NULL", "\u0001", "😀", "\u2028", "long enough to be more than eight", "'", "|", "\x7f", "0"}
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteString(words[r.IntN(len(words))])
	}
	s := b.String()
	for t.Precision > 0 && utf8.RuneCountInString(s) > t.Precision {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	for t.Fixed && utf8.RuneCountInString(s) < t.Precision {
		s += " "
	}
	return s
}

// Batch is n made-up rows.
func Batch(r *rand.Rand, s row.Schema, n int) *row.Batch {
	b := row.NewBuilder(s.Types())
	for range n {
		for c, f := range s {
			Append(r, b.Cols[c], f.Type)
		}
		b.EndRow(1)
	}
	return b.Seal()
}

// Rows are the rows that count as binary rows, to be compared.
func Rows(s row.Schema, b *row.Batch) []string {
	codec := row.NewCodec(s.Types())
	var out []string
	for k := range b.Rows() {
		out = append(out, string(codec.Append(nil, b, b.At(k))))
	}
	return out
}
