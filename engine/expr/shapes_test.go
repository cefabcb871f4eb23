package expr

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/row"
)

// TestShapes: for every function, over random arguments, a row has one result whether it comes in a batch, in a batch of
// its own, or through a selection, and whether an argument is a column or a constant.
func TestShapes(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	names := slices.Sorted(maps.Keys(builtins()))
	r := rand.New(rand.NewPCG(5, 5))
	for _, name := range names {
		fn := builtins()[name]
		if fn.volatile == randomFunction {
			continue
		}
		for attempt := 0; attempt < 5000 && seen[fn.name] < 12; attempt++ {
			n := r.IntN(5)
			if name == "JSON_OBJECT" {
				n = 3
			}
			var cols []row.Type
			var args []Expr
			var letters []byte
			if forms := strings.Split(fn.sig, "|"); fn.sig != "" && r.IntN(10) > 0 {
				letters = []byte(strings.NewReplacer("?", "", "*", "").Replace(forms[r.IntN(len(forms))]))
				n = max(len(letters)-r.IntN(2)*strings.Count(fn.sig, "?"), strings.IndexAny(fn.sig+"?", "?|*"), 0)
			}
			for k := range n {
				typ := shapeType(r)
				if k < len(letters) {
					typ = letterType(r, letters[k])
				}
				if word := shapeWord(r, fn, k, n); word != "" {
					args = append(args, Str(word))
					cols = append(cols, kind(row.Null))
					continue
				}
				args = append(args, &Column{k, typ, ""})
				cols = append(cols, typ)
			}
			e, err := Resolve(name, args)
			if err != nil {
				continue
			}
			if _, plain := e.(*Column); plain {
				continue
			}
			s := Settings{Zone: berlin}
			p, err := Compile([]Expr{e}, s)
			if err != nil {
				continue
			}
			seen[fn.name]++
			checkShapes(t, r, e, p, s, cols)
		}
	}
	for _, name := range names {
		if fn := builtins()[name]; seen[fn.name] == 0 && fn.volatile != randomFunction && fn.name != "NEGATE" {
			t.Errorf("%s was never tried", name)
		}
	}
}

func letterType(r *rand.Rand, c byte) row.Type {
	for {
		t := shapeType(r)
		switch c {
		case 's', 'k':
			return kind(row.String)
		case 'i':
			return kind([]row.Kind{row.TinyInt, row.Int}[r.IntN(2)])
		}
		if _, ok := matchArg(c, &Column{T: t}); ok {
			return t
		}
	}
}

func shapeWord(r *rand.Rand, fn *Function, k, n int) string {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	units := []string{"DAY", "MONTH", "HOUR", "SECOND", "YEAR", "WEEK", "QUARTER", "MILLISECOND"}
	switch {
	case k == 0 && (fn.name == "EXTRACT" || fn.name == "DATE_TRUNC" || strings.HasPrefix(fn.name, "TIMESTAMP")), k == 1 && (fn.name == "FLOOR" || fn.name == "CEIL"):
		return pick(units...)
	case k == 0 && strings.HasPrefix(fn.name, "JSON_") && (strings.HasSuffix(fn.name, "OBJECT") || strings.HasSuffix(fn.name, "ARRAY")):
		return pick("NULL", "ABSENT")
	case k == 1 && strings.HasPrefix(fn.name, "JSON_"):
		return pick("$.a", "$", "strict $.b[0]", "$[*]")
	case k == 1 && fn.name == ".":
		return "x"
	case k == 1 && (fn.name == "DATE_FORMAT" || fn.name == "TO_DATE" || fn.name == "TO_TIMESTAMP" || fn.name == "UNIX_TIMESTAMP"):
		return pick("yyyy-MM-dd", "yyyy-MM-dd HH:mm:ss", "MMM d, yy h a")
	case k == 1 && fn.name == "PARSE_URL":
		return pick("HOST", "PATH", "QUERY", "REF")
	case k == n-1 && (fn.name == "AT TIME ZONE" || fn.name == "CONVERT_TZ"), k == 1 && fn.name == "CONVERT_TZ":
		return pick("UTC", "Asia/Tokyo", "+01:30")
	case k == 1 && (fn.name == "ENCODE" || fn.name == "DECODE"):
		return pick("UTF-8", "UTF-16", "US-ASCII")
	case k == 0 && fn.name == "TRIM" && n == 3:
		return pick("BOTH", "LEADING", "TRAILING")
	case fn.name == "IS JSON" && k == 1:
		return pick("VALUE", "ARRAY")
	case k == 2 && fn.name == "JSON_QUERY":
		return pick("WITHOUT", "CONDITIONAL", "UNCONDITIONAL")
	case k > 2 && fn.name == "JSON_QUERY":
		return pick("NULL", "ERROR", "EMPTY ARRAY")
	case k == 2 && fn.name == "JSON_EXISTS":
		return pick("TRUE", "UNKNOWN", "ERROR")
	}
	return ""
}

func shapeType(r *rand.Rand) row.Type {
	i, s := kind(row.Int), kind(row.String)
	ts := append(naiveTypes(), kind(row.String), kind(row.String), kind(row.Int), kind(row.Float), kind(row.Bytes), kind(row.Numeric), kind(row.Boolean),
		row.Type{Kind: row.Time, Precision: 3}, row.Type{Kind: row.TimestampLTZ, Precision: 3}, timestampType(9), kind(row.IntervalMonths), kind(row.IntervalTime),
		row.Type{Kind: row.Array, Elem: &i}, row.Type{Kind: row.Array, Elem: &s}, row.Type{Kind: row.Map, Key: &s, Elem: &i},
		row.Type{Kind: row.Struct, Fields: []row.Field{{Name: "x", Type: i}, {Name: "y", Type: s}}})
	return ts[r.IntN(len(ts))]
}

func appendShape(r *rand.Rand, v *row.Vector, t row.Type, nulls int) {
	if r.IntN(nulls) == 0 {
		v.AppendNull(t.Layout())
		return
	}
	list := func(elem row.Type) []byte {
		var e row.Vector
		n := r.IntN(4)
		for range n {
			appendShape(r, &e, elem, 5)
		}
		e.Seal(n)
		return row.AppendList(nil, elem, &e, nil, n)
	}
	switch t.Kind {
	case row.String:
		if r.IntN(2) == 0 {
			ss := []string{"2024-02-29", "2024-02-29 12:30:00", `{"a": [1, {"b": null}], "c": "x"}`, `[1, "two"]`, "https://u@h.org:8/p/q?k=1&z=2#r", "UTC", "YWJj",
				"4142", "a%b_c", "(a|b)+", "\xffab", "ä€😀", "x=1&y=2", "-3", "DAY"}
			v.AppendString(ss[r.IntN(len(ss))])
			return
		}
		appendNaive(r, v, t, 1<<30)
	case row.Bytes:
		v.AppendBytes([]byte{0, 0xFF, 'a', 'b'}[:r.IntN(5)])
	case row.Numeric:
		v.AppendString([]string{"1.5", "-2", "0", "123456789012345678901234567890.5", "NaN"}[r.IntN(5)])
	case row.Float:
		v.Float64 = append(v.Float64, float64(float32(r.NormFloat64())))
	case row.Time:
		v.Int64 = append(v.Int64, r.Int64N(row.NanosPerDay/1e6)*1e6)
	case row.TimestampLTZ:
		v.Int64 = append(v.Int64, r.Int64N(4e12)*1000-1e15)
	case row.Timestamp:
		if t.Precision > 6 {
			v.Int64 = append(v.Int64, r.Int64N(4e18)-2e18)
		} else {
			v.Int64 = append(v.Int64, r.Int64N(4e12)*1000-1e15)
		}
	case row.IntervalMonths:
		v.Int64 = append(v.Int64, r.Int64N(100)-50)
	case row.IntervalTime:
		v.Int64 = append(v.Int64, r.Int64N(1e12)-5e11)
	case row.Array:
		v.AppendBytes(list(*t.Elem))
	case row.Map:
		v.AppendBytes(row.AppendMap(nil, row.AppendList(nil, *t.Key, Str("k").Vec, nil, 1), row.AppendList(nil, *t.Elem, Int(kind(row.Int), 7).Vec, nil, 1)))
	case row.Struct:
		cols := make([]*row.Vector, len(t.Fields))
		for k, f := range t.Fields {
			cols[k] = &row.Vector{}
			appendShape(r, cols[k], f.Type, 4)
		}
		v.AppendBytes(row.NewCodec(row.Schema(t.Fields).Types()).AppendColumns(nil, cols, 0))
	case row.Null:
		v.AppendNull(t.Layout())
	default:
		appendNaive(r, v, t, 1<<30)
	}
}

func checkShapes(t *testing.T, r *rand.Rand, e Expr, p *Program, s Settings, cols []row.Type) {
	n := 1 + r.IntN(80)
	b := &row.Batch{Len: n}
	for _, typ := range cols {
		v := &row.Vector{}
		for range n {
			appendShape(r, v, typ, 8)
		}
		v.Seal(n)
		b.Cols = append(b.Cols, v)
	}
	results := func(b *row.Batch, p *Program) map[int]string {
		out, faults := p.Run(b, storyClock)
		got := map[int]string{}
		for k := range b.Rows() {
			i := b.At(k)
			got[i] = cellOf(e.Type(), out[0], i)
			if out[0].Nulls.Is(i) {
				got[i] = "\x00"
				if e.Type().NotNull && len(faults) == 0 {
					t.Errorf("%s is NULL, its type is %s", e, e.Type())
				}
			}
		}
		for _, f := range faults {
			if _, counts := got[int(f.Row)]; !counts {
				t.Errorf("%s: a fault of row %d, which does not count", e, f.Row)
			}
			got[int(f.Row)] = "!" + string(f.Code)
		}
		return got
	}
	whole := results(b, p)
	none := *b
	none.Sel = []int32{}
	if out, faults := p.Run(&none, storyClock); len(faults) > 0 || lengthOf(out[0], e.Type().Layout()) < n {
		t.Errorf("%s over no rows: %d values, %v", e, lengthOf(out[0], e.Type().Layout()), faults)
	}
	half := *b
	half.Sel = []int32{}
	for i := range n {
		if r.IntN(2) == 0 {
			half.Sel = append(half.Sel, int32(i))
		}
	}
	for i, got := range results(&half, p) {
		if got != whole[i] {
			t.Errorf("%s, row %d: %q through a selection, %q without", e, i, got, whole[i])
		}
	}
	for range 3 {
		i := r.IntN(n)
		one := &row.Batch{Len: 1}
		for k, typ := range cols {
			v := &row.Vector{}
			v.Gather(typ.Layout(), 0, b.Cols[k], []int32{int32(i)}, 1)
			one.Cols = append(one.Cols, v)
		}
		if got := results(one, p)[0]; got != whole[i] {
			t.Errorf("%s, row %d: %q alone, %q with others", e, i, got, whole[i])
		}
		constant := Rewrite(e, func(x Expr) Expr {
			if c, ok := x.(*Column); ok && r.IntN(2) == 0 {
				k := NewConst(c.T, one.Cols[c.Index])
				k.T.NotNull = false
				return k
			}
			return x
		})
		pc, err := Compile([]Expr{constant}, s)
		if err != nil {
			if whole[i] != "!W2013" && whole[i] != "\x00" {
				t.Errorf("%s does not compile and is %q with columns: %v", constant, whole[i], err)
			}
			continue
		}
		if got := results(one, pc)[0]; got != whole[i] {
			t.Errorf("%s: %q with constants, %q with columns", constant, got, whole[i])
		}
	}
}
