package expr

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weirstream/weir/engine/row"
)

// bids is a batch like Nexmark's bids.
func bids(n int) (row.Schema, *row.Batch) {
	cols := row.Schema{{Name: "auction", Type: required(kind(row.BigInt), true)}, {Name: "bidder", Type: required(kind(row.BigInt), true)},
		{Name: "price", Type: kind(row.BigInt)}, {Name: "channel", Type: kind(row.String)}, {Name: "url", Type: kind(row.String)},
		{Name: "ts", Type: timestampType(3)}, {Name: "extra", Type: kind(row.String)}, {Name: "d", Type: kind(row.Double)}, {Name: "i", Type: kind(row.Int)}}
	b := row.NewBuilder(cols.Types())
	r := rand.New(rand.NewPCG(1, 1))
	channels := []string{"Google", "Facebook", "Baidu", "Apple", "channel-1234", "channel-77"}
	for i := range n {
		b.Cols[0].Int64 = append(b.Cols[0].Int64, r.Int64N(100000))
		b.Cols[1].Int64 = append(b.Cols[1].Int64, r.Int64N(100000))
		b.Cols[2].Int64 = append(b.Cols[2].Int64, r.Int64N(10000000)+1)
		b.Cols[3].AppendString(channels[r.IntN(len(channels))])
		b.Cols[4].AppendString(fmt.Sprintf("https://www.nexmark.com/abc%d/def/item.htm?query=1&channel_id=%d", r.IntN(1000), r.IntN(100000)))
		b.Cols[5].Int64 = append(b.Cols[5].Int64, 1.7e15+int64(i)*1000)
		extra := make([]byte, 70)
		for k := range extra {
			extra[k] = 'a' + byte(r.IntN(26))
		}
		b.Cols[6].AppendBytes(extra)
		b.Cols[7].Float64 = append(b.Cols[7].Float64, r.Float64())
		b.Cols[8].Int64 = append(b.Cols[8].Int64, r.Int64N(1000))
		b.EndRow(1)
	}
	return cols, b.Seal()
}

func benchmarked() map[string]string {
	return map[string]string{
		"add":           "price + bidder",
		"addInt":        "i + 7",
		"multiply":      "price * bidder",
		"floats":        "d * 2.0E0 + d",
		"lessConst":     "price < 5000000",
		"decimal":       "price * 0.908",
		"modulo":        "auction % 123",
		"likePrefix":    "url LIKE 'https://www.nexmark%'",
		"likeContains":  "url LIKE '%channel_id=77%'",
		"regexpExtract": "REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2)",
		"splitIndex":    "SPLIT_INDEX(url, '/', 4)",
		"dateFormat":    "DATE_FORMAT(ts, 'yyyy-MM-dd')",
		"dateFormatMin": "DATE_FORMAT(ts, 'yyyy-MM-dd HH:mm')",
		"hour":          "HOUR(ts)",
		"caseBands":     "CASE WHEN price < 10000 THEN 'low' WHEN price < 1000000 THEN 'middle' ELSE 'high' END",
		"nightLabel":    "CASE WHEN HOUR(ts) >= 8 AND HOUR(ts) <= 18 THEN 'dayTime' WHEN HOUR(ts) <= 6 OR HOUR(ts) >= 20 THEN 'nightTime' ELSE 'otherTime' END",
		"textEqual":     "channel = 'Apple'",
		"textLess":      "channel < 'Chrome'",
		"lower":         "LOWER(channel)",
		"lowerIn":       "LOWER(channel) IN ('apple', 'google', 'facebook', 'baidu')",
		"countChar":     "COUNT_CHAR(extra, 'c')",
		"concat":        "channel || '-' || extra",
		"castText":      "CAST(price AS STRING)",
		"substring":     "SUBSTRING(url, 9, 11)",
		"and":           "price > 100 AND bidder < 50000",
	}
}

func BenchmarkProgram(b *testing.B) {
	cols, batch := bids(1024)
	for name, text := range benchmarked() {
		e, err := parseExpr(text, cols)
		if err != nil {
			b.Fatal(err)
		}
		p, err := Compile([]Expr{e}, Settings{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				p.Run(batch, 0)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Len), "ns/row")
		})
	}
}

func BenchmarkFilter(b *testing.B) {
	cols, batch := bids(1024)
	for name, text := range map[string]string{"modulo": "MOD(auction, 123) = 0", "two": "url LIKE '%77%' AND price < 1000000"} {
		e, err := parseExpr(text, cols)
		if err != nil {
			b.Fatal(err)
		}
		f, err := CompileFilter(e, Settings{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			var sel []int32
			b.ReportAllocs()
			for range b.N {
				sel, _ = f.Run(batch, 0, sel[:0])
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Len), "ns/row")
		})
	}
}

// TestNoAllocations: a program in its steady state allocates nothing, whatever the batch.
func TestNoAllocations(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	cols, batch := bids(700)
	for i := 0; i < batch.Len; i += 7 {
		batch.Cols[2].SetNull(i, batch.Len)
		batch.Cols[2].Int64[i] = 0
	}
	texts := benchmarked()
	texts["coalesce"] = "COALESCE(price, 0) / 2"
	texts["ltz"] = "CAST(CAST(ts AS TIMESTAMP_LTZ(3)) AS STRING)"
	texts["casts"] = "CAST(CAST(price AS STRING) AS BIGINT) + CAST(CAST(d AS STRING) AS DOUBLE)"
	texts["threeValued"] = "price > 10 OR price IS NULL AND bidder > 5"
	texts["decimals"] = "CAST(price AS DECIMAL(10, 2)) / 3 + 1.5"
	texts["trims"] = "TRIM(LPAD(channel, 20)) LIKE '%_oogl%'"
	texts["array"] = "ARRAY[price, bidder][1]"
	var all []Expr
	for name, text := range texts {
		e, err := parseExpr(text, cols)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, e)
		p, err := Compile([]Expr{e}, Settings{Zone: berlin})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(10, func() { p.Run(batch, 0) }); n > 0 {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
		if e.Type().Kind == row.Boolean {
			f, err := CompileFilter(e, Settings{Zone: berlin})
			if err != nil {
				t.Fatal(err)
			}
			var sel []int32
			if n := testing.AllocsPerRun(10, func() { sel, _ = f.Run(batch, 0, sel[:0]) }); n > 0 {
				t.Errorf("filter %s: %v allocations a batch", name, n)
			}
		}
	}
	p, err := Compile(all, Settings{Zone: berlin})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() { p.Run(batch, 0) }); n > 0 {
		t.Errorf("all in one: %v allocations a batch", n)
	}
}
