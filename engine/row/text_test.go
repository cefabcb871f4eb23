package row

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// typeNamed is the type of a story.
func typeNamed(name string) Type {
	var p, s int
	base, args, _ := strings.Cut(name, "(")
	if n, _ := fmt.Sscanf(args, "%d,%d", &p, &s); n == 0 {
		p = map[string]int{"TIMESTAMP": 6, "TIMESTAMP_LTZ": 6}[base]
	}
	k := map[string]Kind{"BOOLEAN": Boolean, "TINYINT": TinyInt, "SMALLINT": SmallInt, "INT": Int, "BIGINT": BigInt, "FLOAT": Float, "DOUBLE": Double,
		"DECIMAL": Decimal, "NUMERIC": Numeric, "STRING": String, "VARCHAR": String, "CHAR": String, "BYTES": Bytes, "BINARY": Bytes, "VARBINARY": Bytes,
		"DATE": Date, "TIME": Time, "TIMESTAMP": Timestamp, "TIMESTAMP_LTZ": TimestampLTZ, "MONTHS": IntervalMonths, "DAYS": IntervalTime, "UUID": UUID, "JSON": JSON, "ARRAY": Array}[base]
	t := Type{Kind: k, Precision: p, Scale: s, Fixed: base == "CHAR" || base == "BINARY"}
	if k == Array {
		t.Elem = &Type{Kind: Int}
	}
	return t
}

// TestText: "parse TYPE" with a text a line; printed is what AppendText makes of the value, or the error.
func TestText(t *testing.T) {
	datadriven.Walk(t, "testdata/text", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			typ := typeNamed(d.CmdArgs[0].String())
			zone := time.UTC
			if d.HasArg("zone") {
				var name string
				d.ScanArgs(t, "zone", &name)
				var err error
				if zone, err = time.LoadLocation(name); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			for line := range strings.SplitSeq(d.Input, "\n") {
				line = strings.Trim(line, "|")
				var v Vector
				if err := ParseText(&v, typ, []byte(line), zone); err != nil {
					fmt.Fprintf(&out, "%s: error: %v\n", line, err)
					continue
				}
				fmt.Fprintf(&out, "%s: %q", line, AppendText(nil, typ, &v, 0, zone))
				if typ.Kind == TimestampLTZ && zone != time.UTC {
					fmt.Fprintf(&out, " is %s UTC", AppendText(nil, typ, &v, 0, nil))
				}
				out.WriteString("\n")
			}
			return out.String()
		})
	})
}

// TestTextRoundTrip: what is printed reads back as the same value.
func TestTextRoundTrip(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 4))
		typ := anyType(r)
		if r.IntN(3) == 0 {
			typ = []Type{{Kind: Timestamp, Precision: 9}, {Kind: TimestampLTZ, Precision: 6}, {Kind: Time, Precision: 9}, {Kind: IntervalMonths}, {Kind: IntervalTime}}[r.IntN(5)]
		}
		var v, w Vector
		switch typ.Kind {
		case Date:
			v.Int64 = append(v.Int64, r.Int64N(6000000)-3000000)
		case Time:
			v.Int64 = append(v.Int64, r.Int64N(NanosPerDay))
		case IntervalMonths:
			v.Int64 = append(v.Int64, r.Int64N(100000)-50000)
		case Timestamp, TimestampLTZ, IntervalTime:
			v.Int64 = append(v.Int64, r.Int64N(8e18)-4e18)
			if typ.Precision == 3 {
				v.Int64[0] -= v.Int64[0] % 1000
			}
			if typ.Kind == TimestampLTZ {
				v.Int64[0] /= 100
			}
		default:
			typ.NotNull = true
			if appendAny(r, &v, typ); typ.Kind == Bytes || typ.Kind == Decimal && !v.Decimal[0].Fits(typ.Precision) {
				continue
			}
		}
		text := AppendText(nil, typ, &v, 0, berlin)
		if err := ParseText(&w, typ, text, berlin); err != nil {
			t.Fatalf("seed %d: %s %s: %v", seed, typ, text, err)
		}
		// The hour that clocks show twice is read as the first of the two.
		if again := AppendText(nil, typ, &w, 0, berlin); !bytes.Equal(text, again) {
			t.Fatalf("seed %d: %s %s comes back as %s", seed, typ, text, again)
		}
	}
}

// TestLocalTime compares with the time package, through a leap forward and one back.
func TestLocalTime(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 5000 {
			at := time.Date(2020+r.IntN(5), time.Month(1+r.IntN(12)), 1+r.IntN(31), r.IntN(24), r.IntN(60), 0, 0, time.UTC).UnixMicro()
			local := ToLocal(at, 6, zone)
			if got, want := string(AppendTimestamp(nil, local, 0)), time.UnixMicro(at).In(zone).Format(time.DateTime); got != want {
				t.Fatalf("%s: %s, want %s", name, got, want)
			}
			back := FromLocal(local, 6, zone)
			if back != at && (back > at || ToLocal(back, 6, zone) != local) {
				t.Fatalf("%s: %d comes back as %d", name, at, back)
			}
		}
	}
	for days := int64(-1000000); days < 1000000; days += 37 {
		want := time.Unix(days*86400, 0).UTC()
		y, m, d := CivilDate(days)
		if y != int64(want.Year()) || m != int64(want.Month()) || d != int64(want.Day()) || DaysFromCivil(y, m, d) != days {
			t.Fatalf("day %d is %d-%d-%d, want %s", days, y, m, d, want)
		}
	}
}

// TestLists: lists and maps give back what was put in, print as Flink prints, and damaged bytes are refused.
func TestLists(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 5))
		elem := anyType(r)
		n := r.IntN(20)
		var v, w Vector
		for range n {
			appendAny(r, &v, elem)
		}
		v.Seal(n)
		b := AppendList(nil, elem, &v, nil, n)
		if err := CheckList(elem, b); err != nil {
			t.Fatal(err)
		}
		l := ReadList(elem, b)
		if l.Len() != n || ListLen(b) != n {
			t.Fatalf("seed %d: %d elements of %d", seed, l.Len(), n)
		}
		for i := range n {
			l.AppendTo(&w, i)
		}
		w.Seal(n)
		for i := range n {
			if text(elem, &v, i) != text(elem, &w, i) {
				t.Fatalf("seed %d: element %d of %s is %s, want %s", seed, i, elem, text(elem, &w, i), text(elem, &v, i))
			}
		}
		if len(b) > 0 {
			if err := CheckList(elem, b[:len(b)-1]); err == nil && n > 0 {
				t.Fatalf("seed %d: a list without its last byte is taken", seed)
			}
		}
	}
	ints, names := Type{Kind: Int}, Type{Kind: String}
	var iv, sv Vector
	iv.Int64 = []int64{1, 2}
	iv.AppendNull(LayoutInt64)
	for _, s := range []string{"a", "b", "c"} {
		sv.AppendString(s)
	}
	list := AppendList(nil, ints, &iv, nil, 3)
	m := AppendMap(nil, AppendList(nil, names, &sv, nil, 3), list)
	mt := Type{Kind: Map, Key: &names, Elem: &ints}
	if err := CheckMap(mt, m); err != nil {
		t.Fatal(err)
	}
	st := Type{Kind: Struct, Fields: []Field{{"x", ints}, {"l", Type{Kind: Array, Elem: &ints}}, {"m", mt}, {"n", names}}}
	var lv, mv, nv, out Vector
	lv.AppendBytes(list)
	mv.AppendBytes(m)
	nv.AppendNull(LayoutBytes)
	out.AppendBytes(NewCodec(Schema(st.Fields).Types()).AppendColumns(nil, []*Vector{&iv, &lv, &mv, &nv}, 0))
	if got, want := string(AppendText(nil, st, &out, 0, nil)), "(1, [1, 2, NULL], {a=1, b=2, c=NULL}, NULL)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzParseText(f *testing.F) {
	names := strings.Fields("BOOLEAN BIGINT TINYINT FLOAT DOUBLE DECIMAL(10,2) NUMERIC CHAR(3) DATE TIME(3) TIMESTAMP(3) TIMESTAMP(9) TIMESTAMP_LTZ MONTHS DAYS UUID JSON")
	for i, s := range strings.Split("true|1|-129|1e400|1.5|99999999.995|1E5|äöü|2020-02-29|12:00|2020-01-01T00:00:00.5|x|2020-01-01 00:00+01:00|1-2|1 02:03:04|0f|{}", "|") {
		f.Add(i, s)
	}
	f.Fuzz(func(t *testing.T, i int, s string) {
		typ := typeNamed(names[uint(i)%uint(len(names))])
		var v, w Vector
		if ParseText(&v, typ, []byte(s), nil) != nil {
			return
		}
		text := AppendText(nil, typ, &v, 0, nil)
		if err := ParseText(&w, typ, text, nil); err != nil {
			t.Fatalf("%s %q prints as %q, which does not read: %v", typ, s, text, err)
		}
		if again := AppendText(nil, typ, &w, 0, nil); !bytes.Equal(text, again) {
			t.Fatalf("%s %q prints as %q, then as %q", typ, s, text, again)
		}
	})
}
