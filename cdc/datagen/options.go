package datagen

import (
	"math"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a Source.
type Options struct {
	Schema row.Schema
	// Columns are the places in Schema of the columns that a batch has, in that order; nil means all. They do not change
	// the values.
	Columns       []int
	Fields        []Field        // one for each column of Schema
	RowsPerSecond int64          // of all splits together; default 10,000
	Rows          int64          // number-of-rows; 0 means without end
	Seed          uint64         // the same seed gives the same rows
	Zone          *time.Location // in which a TIMESTAMP tells the time; default UTC
	// Split of Splits: the source makes the rows whose number has this remainder. The zero values mean all rows.
	Split, Splits int
}

// Field is how the values of a column are made.
type Field struct {
	Sequence   bool
	Start, End int64 // of a sequence; the stream ends behind End

	// Min and Max, both included, of integers, intervals (months, milliseconds) and the unscaled value of decimals.
	Min, Max           row.Int128
	MinFloat, MaxFloat float64
	MaxPast            time.Duration // how far a timestamp lies before the time of its row at most
	Length             int           // of strings, in characters, and bytes
	VarLen             bool          // lengths are from 1 to Length
	NullRate           float64       // share of NULLs, 0 to 1
}

// ParseOptions reads the WITH clause of a table.
func ParseOptions(schema row.Schema, c *with.Clause) (Options, error) {
	o := Options{
		Schema:        schema,
		RowsPerSecond: c.Int("rows-per-second", 10_000, 1, math.MaxInt64),
		Rows:          c.Int("number-of-rows", 0, 1, math.MaxInt64),
		Seed:          uint64(c.Int("seed", 0, math.MinInt64, math.MaxInt64)),
	}
	c.Has("scan.parallelism") // the planner's
	for _, f := range schema {
		o.Fields = append(o.Fields, parseField(f, c))
	}
	return o, c.End("connector 'datagen'")
}

// A field's default length, as in Flink.
const defaultLength = 100

func parseField(f row.Field, c *with.Clause) Field {
	key := func(name string) string { return "fields." + f.Name + "." + name }
	t := f.Type
	var o Field
	if c.Choice(key("kind"), "random", "random", "sequence") == "sequence" {
		o.Sequence = true
		for _, k := range []string{"start", "end"} {
			c.Required(key(k))
		}
		o.Start = c.Int(key("start"), 0, math.MinInt64, math.MaxInt64)
		o.End = c.Int(key("end"), 0, math.MinInt64, math.MaxInt64)
		if o.End < o.Start {
			c.Fail(key("end"), errs.New(errs.UnknownOption, "option '%s' is below '%s'", key("end"), key("start")).WithHint("a sequence counts up from start to end"))
		}
		switch {
		case t.Kind.Number(), t.Kind == row.String:
		default:
			c.Fail(key("kind"), errs.New(errs.UnknownOption, "column %s of type %s cannot be a sequence", f.Name, t).WithHint("numbers and strings can"))
		}
		if t.Kind.Integer() {
			if least, most := intRange(t.Kind); o.Start < least || o.End > most {
				c.Fail(key("end"), errs.New(errs.UnknownOption, "the sequence of column %s leaves the range of %s", f.Name, t).WithHint("it may run from %d to %d", least, most))
			}
		}
		return o
	}
	if o.NullRate = c.Float(key("null-rate"), 0, 0, 1); o.NullRate > 0 && t.NotNull {
		c.Fail(key("null-rate"), errs.New(errs.UnknownOption, "column %s is NOT NULL and has a null-rate", f.Name).WithHint("leave one of the two out"))
	}
	switch t.Kind {
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt, row.IntervalMonths, row.IntervalTime:
		least, most := intRange(t.Kind)
		low, high := least, most
		if t.Kind == row.IntervalMonths || t.Kind == row.IntervalTime {
			low = 0
		}
		low = c.Int(key("min"), low, least, most)
		high = c.Int(key("max"), high, least, most)
		o.Min, o.Max = row.Int128From(low), row.Int128From(high)
	case row.Float:
		o.MinFloat = c.Float(key("min"), 0, -math.MaxFloat32, math.MaxFloat32)
		o.MaxFloat = c.Float(key("max"), math.MaxFloat32, -math.MaxFloat32, math.MaxFloat32)
	case row.Double:
		o.MinFloat = c.Float(key("min"), 0, -math.MaxFloat64, math.MaxFloat64)
		o.MaxFloat = c.Float(key("max"), math.MaxFloat64, -math.MaxFloat64, math.MaxFloat64)
	case row.Decimal:
		high := powerOfTen(t.Precision)
		high, _ = high.Sub(row.Int128From(1))
		o.Min, o.Max = parseDecimal(c, key("min"), t, high.Neg()), parseDecimal(c, key("max"), t, high)
	case row.Numeric:
		o.Min = row.Int128From(c.Int(key("min"), math.MinInt64, math.MinInt64, math.MaxInt64))
		o.Max = row.Int128From(c.Int(key("max"), math.MaxInt64, math.MinInt64, math.MaxInt64))
	case row.String, row.Bytes:
		most, def := int64(1<<20), int64(defaultLength)
		if t.Precision > 0 {
			most, def = min(most, int64(t.Precision)), min(most, int64(t.Precision))
		}
		o.Length = int(c.Int(key("length"), def, 1, most))
		if o.VarLen = c.Bool(key("var-len"), false); o.VarLen && t.Fixed {
			c.Fail(key("var-len"), errs.New(errs.UnknownOption, "column %s of type %s has one length only", f.Name, t).WithHint("leave 'var-len' out"))
		}
		if t.Fixed && o.Length != t.Precision {
			c.Fail(key("length"), errs.New(errs.UnknownOption, "column %s of type %s has one length only", f.Name, t).WithHint("leave 'length' out"))
		}
	case row.JSON:
		o.Length = int(c.Int(key("length"), defaultLength, 1, 1<<20))
		o.VarLen = c.Bool(key("var-len"), false)
	case row.Timestamp, row.TimestampLTZ:
		o.MaxPast = c.Duration(key("max-past"), 0)
	case row.Boolean, row.Date, row.Time, row.UUID:
	default:
		c.Fail(key("kind"), errs.New(errs.NotBuiltYet, "datagen makes no values of type %s, which column %s has", t, f.Name).WithHint("make it of other columns with an expression"))
	}
	if o.Min.Cmp(o.Max) > 0 || o.MinFloat > o.MaxFloat {
		c.Fail(key("max"), errs.New(errs.UnknownOption, "option '%s' is below '%s'", key("max"), key("min")).WithHint("values are drawn from min to max, both included"))
	}
	return o
}

// intRange is the range of a kind; of intervals of time in milliseconds, up to 10,000 years.
func intRange(k row.Kind) (least, most int64) {
	switch k {
	case row.TinyInt:
		return math.MinInt8, math.MaxInt8
	case row.SmallInt:
		return math.MinInt16, math.MaxInt16
	case row.Int:
		return math.MinInt32, math.MaxInt32
	case row.IntervalMonths:
		return -120_000, 120_000
	case row.IntervalTime:
		const years = 10_000 * 365 * 24 * 3600 * 1000
		return -years, years
	}
	return math.MinInt64, math.MaxInt64
}

// powerOfTen is 10^n, n up to 38.
func powerOfTen(n int) row.Int128 {
	p := row.Int128From(1)
	for range n {
		p = timesTen(p)
	}
	return p
}

func timesTen(a row.Int128) row.Int128 {
	two, _ := a.Add(a)
	four, _ := two.Add(two)
	five, _ := four.Add(a)
	ten, _ := five.Add(five)
	return ten
}

// parseDecimal reads an option as the unscaled value of a DECIMAL.
func parseDecimal(c *with.Clause, key string, t row.Type, def row.Int128) row.Int128 {
	if !c.Has(key) {
		return def
	}
	text := strings.TrimSpace(c.Text(key, ""))
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	fraction = strings.TrimRight(fraction, "0")
	whole = strings.TrimLeft(whole, "0")
	if len(fraction) > t.Scale || len(whole) > t.Precision-t.Scale || strings.Trim(whole+fraction, "0123456789") != "" || digits == "" || digits == "." {
		c.Fail(key, errs.New(errs.UnknownOption, "option '%s' does not take %q: it wants a %s", key, text, t).WithHint("write it as 12.34"))
		return def
	}
	fraction += strings.Repeat("0", t.Scale-len(fraction))
	v := row.Int128{}
	for _, d := range whole + fraction {
		v, _ = timesTen(v).Add(row.Int128From(int64(d - '0')))
	}
	if negative {
		v = v.Neg()
	}
	return v
}
