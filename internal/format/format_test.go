package format_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
)

// What the fast ways read is what row.ParseText reads, and they refuse what it refuses.
func TestAppendIsParseText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	types := []row.Type{{Kind: row.TinyInt}, {Kind: row.Int}, {Kind: row.BigInt}, {Kind: row.Double}, {Kind: row.Float},
		{Kind: row.Timestamp}, {Kind: row.Timestamp, Precision: 3}, {Kind: row.Timestamp, Precision: 9}, {Kind: row.String}, {Kind: row.String, Precision: 4}}
	seeds := []string{"0", "-0", "7", "-128", "128", "2147483648", "9223372036854775807", "-9223372036854775808", "999999999999999999", "1000000000000000000", "0.1", "-12.75", "1e3",
		"9007199254740993", "9007199254740992", "0.30000000000000004", "123456789.123456", "16777217", ".5", "5.", "2026-02-28 23:59:59", "2024-02-29T00:00:00.123456789", "2023-02-29 00:00:00",
		"1969-12-31 23:59:59.999999", "2026-13-01 00:00:00", "2026-01-01 24:00:00", "0000-01-01 00:00:00", "9999-12-31 23:59:59.9", "2262-01-01 00:00:00", "", " 1 "}
	const letters = "0123456789-+.:T eé"
	taken := 0
	for range 200_000 {
		text := []byte(seeds[r.IntN(len(seeds))])
		for range r.IntN(3) {
			if at := r.IntN(len(text) + 1); r.IntN(2) == 0 || at == len(text) {
				text = slices.Insert(text, at, letters[r.IntN(len(letters))])
			} else {
				text[at] = letters[r.IntN(len(letters))]
			}
		}
		typ := types[r.IntN(len(types))]
		var a, b row.Vector
		err, want := format.Append(&a, typ, text, time.UTC), row.ParseText(&b, typ, text, time.UTC)
		if (err == nil) != (want == nil) || !slices.Equal(a.Int64, b.Int64) || !slices.Equal(a.Float64, b.Float64) || !slices.Equal(a.Spans, b.Spans) || !bytes.Equal(a.Heap, b.Heap) {
			t.Fatalf("%s of %q: %v %v %v, want %v %v %v", typ, text, a.Int64, a.Float64, err, b.Int64, b.Float64, want)
		}
		if err == nil {
			taken++
		}
	}
	if taken < 50_000 {
		t.Errorf("only %d texts were values", taken)
	}
}

func TestPlain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = byte(0x20 + r.IntN(0x60))
			if r.IntN(20) == 0 {
				b[i] = byte(r.Uint32())
			}
		}
		want := 0
		for want < len(b) && b[want] >= 0x20 && b[want] < 0x80 && b[want] != '"' && b[want] != '\\' {
			want++
		}
		if got := format.Plain(b); got != want {
			t.Fatalf("%q: %d, want %d", b, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var v, want row.Vector
		n, extra := r.IntN(200), r.IntN(200)
		for i := range n + extra {
			x := r.IntN(3)
			for _, to := range []*row.Vector{&v, &want} {
				if to == &want && i >= n {
					continue
				}
				if x == 0 {
					to.AppendNull(row.LayoutInt64)
				} else {
					to.Int64 = append(to.Int64, int64(x))
				}
			}
		}
		format.Cut(&v, row.LayoutInt64, n)
		for _, to := range []*row.Vector{&v, &want} {
			for range 70 { // values without NULL behind the cut
				to.Int64 = append(to.Int64, 5)
			}
			to.Seal(n + 70)
		}
		if !slices.Equal(v.Int64, want.Int64) {
			t.Fatal("other values")
		}
		for i := range n + 70 {
			if v.Nulls.Is(i) != want.Nulls.Is(i) {
				t.Fatalf("cut to %d of %d: value %d is NULL %v", n, n+extra, i, v.Nulls.Is(i))
			}
		}
	}
}
