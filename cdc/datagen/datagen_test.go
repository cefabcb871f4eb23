package datagen

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/test/conform"
)

func schema() row.Schema {
	s := row.Schema{}
	for i, t := range []row.Type{
		{Kind: row.Boolean}, {Kind: row.TinyInt}, {Kind: row.SmallInt}, {Kind: row.Int}, {Kind: row.BigInt}, {Kind: row.Float}, {Kind: row.Double},
		{Kind: row.Decimal, Precision: 38, Scale: 4}, {Kind: row.Decimal, Precision: 5, Scale: 2}, {Kind: row.Numeric}, {Kind: row.String},
		{Kind: row.String, Precision: 7, Fixed: true}, {Kind: row.Bytes, Precision: 9}, {Kind: row.Date}, {Kind: row.Time, Precision: 0},
		{Kind: row.Timestamp, Precision: 3}, {Kind: row.TimestampLTZ, Precision: 9}, {Kind: row.IntervalMonths}, {Kind: row.IntervalTime},
		{Kind: row.UUID}, {Kind: row.JSON},
	} {
		s = append(s, row.Field{Name: fmt.Sprintf("f%d", i), Type: t})
	}
	return s
}

func parse(t *testing.T, s row.Schema, values map[string]string) Options {
	t.Helper()
	o, err := ParseOptions(s, with.New(values, nil))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, o Options, state dataflow.State) *Source {
	t.Helper()
	s, err := New(env.Real(nil), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(context.Background(), state); err != nil {
		t.Fatal(err)
	}
	return s
}

// read gives up to stop messages as binary rows, and the state behind them.
func read(t *testing.T, s *Source, stop int) (rows [][]byte, state dataflow.State) {
	t.Helper()
	codec := row.NewCodec(s.out.Types())
	state = dataflow.State{}
	for range stop {
		m, err := s.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == dataflow.KindEnd {
			break
		}
		for i := range m.Batch.Len {
			rows = append(rows, codec.Append(nil, m.Batch, i))
		}
		for _, c := range m.State {
			state[c.Key] = c.Value
		}
	}
	return rows, state
}

func TestRestartGivesTheSameRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		values := map[string]string{"number-of-rows": "9000", "rows-per-second": "100000", "seed": "7", "fields.f4.null-rate": "0.3", "fields.f10.var-len": "true", "fields.f15.max-past": "1 d"}
		for range 5 {
			for splits := 1; splits < 4; splits++ {
				o := parse(t, schema(), values)
				o.Split, o.Splits = r.IntN(splits), splits
				head, state := read(t, open(t, o, nil), 1+r.IntN(20))
				again := open(t, o, state)
				time.Sleep(time.Hour)
				rest, _ := read(t, again, math.MaxInt)
				first, state := read(t, open(t, o, nil), 1)
				straight := open(t, o, state)
				straight.began = again.began
				tail, _ := read(t, straight, math.MaxInt)
				got, want := append(head, rest...), append(first, tail...)
				if len(got) != len(want) || len(got) != (9000-o.Split+splits-1)/splits {
					t.Fatalf("split %d of %d: %d and %d rows", o.Split, splits, len(got), len(want))
				}
				for i := len(first); i < len(got); i++ {
					if i >= len(head) && !bytes.Equal(got[i], want[i]) {
						t.Fatalf("split %d of %d: row %d differs", o.Split, splits, i)
					}
				}
			}
		}
	})
}

// Without columns of time, whose beginning is in the state, the rows depend on nothing but the options.
func TestConform(t *testing.T) {
	s := schema()
	s = append(s[:13:13], s[17:]...)
	for _, splits := range []int{1, 3} {
		o := parse(t, s, map[string]string{"number-of-rows": "20000", "rows-per-second": "100000000", "fields.f4.null-rate": "0.3"})
		o.Split, o.Splits = splits-1, splits
		conform.TestTypedSource(t, conform.TypedSource{
			Tables: [][]row.Type{s.Types()},
			New: func(t *testing.T) dataflow.Source {
				src, err := New(env.Real(nil), o)
				if err != nil {
					t.Fatal(err)
				}
				return src
			},
			Cuts: 3,
		})
	}
}

func TestProjectionKeepsValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := parse(t, schema(), map[string]string{"number-of-rows": "100"})
		m, err := open(t, o, nil).Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		full := m.Batch
		o.Columns = []int{19, 3}
		if m, err = open(t, o, nil).Read(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(m.Batch.Cols) != 2 || !bytes.Equal(m.Batch.Cols[0].Bytes(0), full.Cols[19].Bytes(0)) || m.Batch.Cols[1].Int64[0] != full.Cols[3].Int64[0] {
			t.Error("a projection gives other values")
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []int64{1, 3, 1000, 10_000, 1_000_000} {
			o := parse(t, schema()[:1], map[string]string{"rows-per-second": fmt.Sprint(rate)})
			s := open(t, o, nil)
			start, rows, messages := time.Now(), int64(0), 0
			for time.Since(start) < 10*time.Second {
				m, err := s.Read(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				rows += int64(m.Batch.Len)
				messages++
			}
			if rows < 10*rate-min(rate/100, row.MaxBatch) || rows > 10*rate+max(rate/50, 1) {
				t.Errorf("%d rows in 10 s at %d a second", rows, rate)
			}
			if rate >= 1000 && messages > 2*int(max(2000, rows/row.MaxBatch)) {
				t.Errorf("%d messages for %d rows", messages, rows)
			}
			time.Sleep(time.Minute) // held up for a minute: one second is caught up
			caught := int64(0)
			for at := time.Now(); time.Since(at) == 0; {
				m, err := s.Read(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				caught += int64(m.Batch.Len)
			}
			if caught < rate-min(rate/100, row.MaxBatch) || caught > rate+2*max(rate/50, 2) {
				t.Errorf("%d rows caught up at %d a second", caught, rate)
			}
		}
	})
}

func TestValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := row.Schema{
			{Name: "id", Type: row.Type{Kind: row.BigInt}}, {Name: "small", Type: row.Type{Kind: row.TinyInt}}, {Name: "price", Type: row.Type{Kind: row.Decimal, Precision: 10, Scale: 2}},
			{Name: "name", Type: row.Type{Kind: row.String}}, {Name: "at", Type: row.Type{Kind: row.TimestampLTZ, Precision: 3}}, {Name: "f", Type: row.Type{Kind: row.Float}},
			{Name: "label", Type: row.Type{Kind: row.String}},
		}
		o := parse(t, s, map[string]string{
			"fields.id.kind": "sequence", "fields.id.start": "11", "fields.id.end": "3010",
			"fields.small.min": "-2", "fields.small.max": "2", "fields.price.min": "-0.5", "fields.price.max": "1.07",
			"fields.name.length": "5", "fields.name.var-len": "true", "fields.at.max-past": "10 s", "fields.f.max": "2.5",
			"fields.label.kind": "sequence", "fields.label.start": "0", "fields.label.end": "100000", "fields.small.null-rate": "0.25", "rows-per-second": "1000000",
		})
		src := open(t, o, nil)
		began := src.began
		rows, nulls := 0, 0
		seen := map[string]int{}
		for {
			m, err := src.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if m.Kind == dataflow.KindEnd {
				break
			}
			b := m.Batch
			for i := range b.Len {
				if b.Cols[0].Int64[i] != int64(11+rows) || string(b.Cols[6].Bytes(i)) != fmt.Sprint(rows) {
					t.Fatalf("row %d: id %d, label %s", rows, b.Cols[0].Int64[i], b.Cols[6].Bytes(i))
				}
				if b.Cols[1].Nulls.Is(i) {
					nulls++
				} else {
					seen[fmt.Sprint("small ", b.Cols[1].Int64[i])]++
				}
				price, _ := b.Cols[2].Decimal[i].Int64()
				if price < -50 || price > 107 {
					t.Fatalf("price %d", price)
				}
				seen[fmt.Sprint("price ", price)]++
				seen[fmt.Sprint("length ", len(b.Cols[3].Bytes(i)))]++
				at := time.UnixMicro(b.Cols[4].Int64[i])
				if at.After(began.Add(time.Duration(rows)*time.Microsecond)) || at.Before(began.Add(-11*time.Second)) {
					t.Fatalf("row %d of %v is at %v", rows, began, at)
				}
				if f := b.Cols[5].Float64[i]; f < 0 || f > 2.5 {
					t.Fatalf("float %v", f)
				}
				rows++
			}
		}
		if rows != 3000 {
			t.Errorf("%d rows; the sequence has 3000", rows)
		}
		if nulls < 650 || nulls > 850 {
			t.Errorf("%d NULLs, about 750 were wanted", nulls)
		}
		for _, k := range []string{"small -2", "small 2", "price -50", "price 107", "length 1", "length 5"} {
			if seen[k] == 0 {
				t.Errorf("no %s", k)
			}
		}
		if seen["length 0"] > 0 || seen["length 6"] > 0 || seen["small 3"] > 0 {
			t.Errorf("out of range: %v", seen)
		}
	})
}

func TestRefusedOptions(t *testing.T) {
	s := row.Schema{{Name: "n", Type: row.Type{Kind: row.TinyInt}}, {Name: "d", Type: row.Type{Kind: row.Decimal, Precision: 4, Scale: 1}},
		{Name: "s", Type: row.Type{Kind: row.String, Precision: 3, Fixed: true}}, {Name: "b", Type: row.Type{Kind: row.Boolean, NotNull: true}}}
	for _, c := range []struct{ values, want string }{
		{"fields.n.kind=sequnce", "did you mean sequence?"},
		{"fields.n.kind=sequence", "option 'fields.n.start' is missing"},
		{"fields.n.kind=sequence fields.n.start=1 fields.n.end=128", "leaves the range of TINYINT"},
		{"fields.n.kind=sequence fields.n.start=2 fields.n.end=1", "is below 'fields.n.start'"},
		{"fields.b.kind=sequence fields.b.start=1 fields.b.end=2", "cannot be a sequence"},
		{"fields.n.min=5 fields.n.max=4", "option 'fields.n.max' is below 'fields.n.min'"},
		{"fields.n.min=-129", "an integer from -128 to 127"},
		{"fields.d.max=1000", "it wants a DECIMAL(4, 1)"},
		{"fields.d.max=1.25", "it wants a DECIMAL(4, 1)"},
		{"fields.s.length=2", "has one length only"},
		{"fields.b.null-rate=0.1", "is NOT NULL and has a null-rate"},
		{"fields.m.min=1", "there is no option 'fields.m.min' of connector 'datagen'"},
		{"row-per-second=1", "did you mean rows-per-second?"},
	} {
		values := map[string]string{}
		for _, kv := range strings.Fields(c.values) {
			k, v, _ := strings.Cut(kv, "=")
			values[k] = v
		}
		_, err := ParseOptions(s, with.New(values, nil))
		e, ok := errs.As(err)
		if !ok || !strings.Contains(e.Message+" "+e.Hint, c.want) {
			t.Errorf("%s: %v, want %s", c.values, err, c.want)
		}
	}
	arr := row.Schema{{Name: "a", Type: row.Type{Kind: row.Array, Elem: &row.Type{Kind: row.Int}}}}
	if _, err := ParseOptions(arr, with.New(nil, nil)); !errs.Is(err, errs.NotBuiltYet) {
		t.Errorf("an array: %v", err)
	}
	src, err := New(env.Real(nil), Options{Schema: s[:1], Fields: make([]Field, 1), Splits: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Open(context.Background(), dataflow.State{"datagen/0/1": make([]byte, 16)}); !errs.Is(err, errs.SourceReplaced) {
		t.Errorf("the state of another number of splits: %v", err)
	}
}

func BenchmarkMake(b *testing.B) {
	s := row.Schema{{Name: "id", Type: row.Type{Kind: row.BigInt}}, {Name: "price", Type: row.Type{Kind: row.Int}}, {Name: "at", Type: row.Type{Kind: row.TimestampLTZ, Precision: 3}},
		{Name: "name", Type: row.Type{Kind: row.String, Precision: 16}}}
	o, err := ParseOptions(s, with.New(map[string]string{"rows-per-second": "1000000000000"}, nil))
	if err != nil {
		b.Fatal(err)
	}
	src, err := New(env.Real(nil), o)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; n < b.N; n += row.MaxBatch {
		src.make(row.MaxBatch)
		src.next += row.MaxBatch
	}
}
