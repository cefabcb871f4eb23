package expr

import (
	"math"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// sameValues tells a cast that changes nothing in a vector: to a wider type, or by name only.
func sameValues(a, b row.Type) bool {
	switch {
	case a.Same(b):
		return true
	case a.Kind.Integer() && b.Kind.Integer():
		return a.Kind <= b.Kind
	case a.Kind == row.Float && b.Kind == row.Double:
		return true
	case a.Kind == row.String && b.Kind == row.String, a.Kind == row.Bytes && b.Kind == row.Bytes:
		return !b.Fixed && (b.Precision == 0 || a.Precision > 0 && a.Precision <= b.Precision)
	case (a.Kind == row.JSON || a.Kind == row.Foreign || a.Kind == row.Numeric || a.Kind == row.Bytes) && b.Kind == row.String:
		return !b.Fixed && b.Precision == 0
	case a.Kind == row.String && (b.Kind == row.Foreign || b.Kind == row.Bytes):
		return !b.Fixed && b.Precision == 0
	case a.Kind == row.Decimal && b.Kind == row.Decimal:
		return a.Scale == b.Scale && a.Precision <= b.Precision
	case a.Kind == b.Kind && (a.Kind == row.Timestamp || a.Kind == row.TimestampLTZ):
		return a.Precision <= b.Precision && (a.Precision > 6) == (b.Precision > 6)
	case a.Kind == row.Time && b.Kind == row.Time:
		return a.Precision <= b.Precision
	case a.Kind == b.Kind && (a.Kind == row.Array || a.Kind == row.Map || a.Kind == row.Multiset):
		return sameForm(*a.Elem, *b.Elem) && (a.Key == nil || sameForm(*a.Key, *b.Key))
	case a.Kind == row.Struct && b.Kind == row.Struct:
		for i := range a.Fields {
			if !sameForm(a.Fields[i].Type, b.Fields[i].Type) {
				return false
			}
		}
		return true
	}
	return false
}

// sameForm tells types whose values lie alike inside of lists and rows, where a narrow number takes fewer bytes.
func sameForm(a, b row.Type) bool {
	if a.Kind != b.Kind || a.Precision != b.Precision || a.Scale != b.Scale || a.Fixed != b.Fixed {
		return false
	}
	switch a.Kind {
	case row.Array, row.Map, row.Multiset, row.Struct:
		return sameValues(a, b)
	}
	return true
}

// reject tells that a value cannot be cast.
func (f *frame) reject(i int, why string) {
	c := f.e.(*Cast)
	if c.Try {
		f.null(i)
		return
	}
	f.fail(i, errs.EvalCast, why)
}

func (f *frame) rejectRange(i int) {
	c := f.e.(*Cast)
	if c.Try {
		f.null(i)
		return
	}
	f.overflow(i)
}

func castKernel(c *Cast, s *Settings) (kernel, error) {
	a, b := c.Arg.Type().Nullable(), c.T.Nullable()
	switch {
	case a.Kind == row.String || a.Kind == row.JSON || a.Kind == row.Foreign:
		if b.Kind == row.String {
			return fitText(b), nil
		}
		return parseKernel(b, s.Zone), nil
	case b.Kind == row.String:
		return printKernel(a, b, s.Zone), nil
	case b.Kind == row.Boolean:
		return func(f *frame) {
			for i, x := range f.in[0].Int64[:f.n] {
				f.out.Int64[i] = bit(x != 0)
			}
		}, nil
	}
	if k := castNumber(a, b); k != nil {
		return k, nil
	}
	if k := castTime(a, b, s.Zone); k != nil {
		return k, nil
	}
	switch {
	case b.Kind == row.Bytes && (a.Kind == row.Bytes || a.Kind == row.UUID):
		return fitBytes(b), nil
	case a.Kind == row.Bytes && b.Kind == row.UUID:
		return func(f *frame) {
			f.share(0)
			f.each(func(i int) {
				if f.out.Spans[i] = f.in[0].Spans[i]; f.out.Spans[i].Len != 16 {
					f.reject(i, "a UUID has 16 bytes")
				}
			})
		}, nil
	}
	if a.Kind == b.Kind {
		return castNested(a, b, s)
	}
	return nil, errs.New(errs.SQLTypeMismatch, "%s cannot be cast to %s", a, b)
}

func parseKernel(t row.Type, zone *time.Location) kernel {
	var v row.Vector
	return func(f *frame) {
		f.each(func(i int) {
			v.Truncate()
			b := f.in[0].Bytes(i)
			if err := row.ParseText(&v, t, b, zone); err != nil {
				if c := f.e.(*Cast); c.Try {
					f.null(i)
				} else {
					f.reject(i, quoteShort(b)+": "+err.Error())
				}
				return
			}
			switch t.Layout() {
			case row.LayoutInt64:
				f.out.Int64[i] = v.Int64[0]
			case row.LayoutFloat64:
				f.out.Float64[i] = v.Float64[0]
			case row.LayoutDecimal:
				f.out.Decimal[i] = v.Decimal[0]
			case row.LayoutBytes:
				off := len(f.heap)
				f.heap = append(f.heap, v.Bytes(0)...)
				f.put(i, off)
			}
		})
	}
}

func quoteShort(b []byte) string {
	if len(b) > 60 {
		return "'" + string(b[:60]) + "...'"
	}
	return "'" + string(b) + "'"
}

func printKernel(from, to row.Type, zone *time.Location) kernel {
	fitted := to.Fixed || to.Precision > 0
	var scratch []byte
	return func(f *frame) {
		v := f.in[0]
		f.each(func(i int) {
			off := len(f.heap)
			if fitted {
				scratch = row.AppendText(scratch[:0], from, v, i, zone)
				f.heap = row.AppendFitted(f.heap, to, scratch)
			} else {
				f.heap = row.AppendText(f.heap, from, v, i, zone)
			}
			f.put(i, off)
		})
	}
}

func fitText(t row.Type) kernel {
	return func(f *frame) {
		f.each(func(i int) {
			off := len(f.heap)
			f.heap = row.AppendFitted(f.heap, t, f.in[0].Bytes(i))
			f.put(i, off)
		})
	}
}

func fitBytes(t row.Type) kernel {
	return func(f *frame) {
		f.each(func(i int) {
			off, b := len(f.heap), f.in[0].Bytes(i)
			if t.Precision > 0 && len(b) > t.Precision {
				b = b[:t.Precision]
			}
			f.heap = append(f.heap, b...)
			for n := len(b); t.Fixed && n < t.Precision; n++ {
				f.heap = append(f.heap, 0)
			}
			f.put(i, off)
		})
	}
}

// castNumber casts between numbers, BOOLEAN and intervals; nil if it is something else.
func castNumber(a, b row.Type) kernel {
	from, to := a.Layout(), b.Layout()
	number := func(t row.Type) bool { return t.Kind.Number() || t.Kind == row.Boolean || interval(t) }
	if !number(a) || !number(b) {
		return nil
	}
	if a.Kind == row.Numeric {
		return parseKernel(b, nil)
	}
	if b.Kind == row.Numeric {
		return numericKernel(a)
	}
	// Intervals of time are milliseconds as a number, as in Flink.
	mul, div := int64(1), int64(1)
	if a.Kind == row.IntervalTime && b.Kind != row.IntervalTime {
		div = 1000
	} else if b.Kind == row.IntervalTime && a.Kind != row.IntervalTime {
		mul = 1000
	}
	switch {
	case from == row.LayoutInt64 && to == row.LayoutInt64:
		low, high := rangeOf(b)
		return func(f *frame) {
			f.each(func(i int) {
				x, ok := mulInt64(f.in[0].Int64[i]/div, mul)
				if f.out.Int64[i] = x; !ok || x < low || x > high {
					f.rejectRange(i)
				}
			})
		}
	case from == row.LayoutInt64 && to == row.LayoutFloat64:
		single := b.Kind == row.Float
		return func(f *frame) {
			out := f.out.Float64
			for i, x := range f.in[0].Int64[:f.n] {
				out[i] = float64(x)
			}
			if single {
				for i, x := range f.in[0].Int64[:f.n] {
					out[i] = float64(float32(x))
				}
			}
		}
	case from == row.LayoutInt64 && to == row.LayoutDecimal:
		p := row.Pow10(b.Scale)
		p64, small := p.Int64()
		check := castFaults(a, b)
		return func(f *frame) {
			out := f.out.Decimal
			if small && !check {
				for i, x := range f.in[0].Int64[:f.n] {
					out[i] = row.MulInt64(x, p64)
				}
				return
			}
			f.each(func(i int) {
				d, ok := row.Int128From(f.in[0].Int64[i]).Mul(p)
				if out[i] = d; !ok || !d.Fits(b.Precision) {
					f.rejectRange(i)
				}
			})
		}
	case from == row.LayoutFloat64 && to == row.LayoutInt64:
		low, high := rangeOf(b)
		return func(f *frame) {
			f.each(func(i int) {
				x := f.in[0].Float64[i]
				t := math.Trunc(x)
				if !(t >= float64(low) && (t <= float64(high) && (high != math.MaxInt64 || t < 1<<63))) {
					f.rejectRange(i)
					return
				}
				f.out.Int64[i] = int64(t)
			})
		}
	case from == row.LayoutFloat64 && to == row.LayoutFloat64: // to FLOAT
		return func(f *frame) {
			f.each(func(i int) {
				x := f.in[0].Float64[i]
				y := float64(float32(x))
				if math.IsInf(y, 0) && !math.IsInf(x, 0) {
					f.rejectRange(i)
					return
				}
				f.out.Float64[i] = y
			})
		}
	case from == row.LayoutFloat64 && to == row.LayoutDecimal:
		bits := 64
		if a.Kind == row.Float {
			bits = 32
		}
		return func(f *frame) {
			f.each(func(i int) {
				d, ok := row.DecimalFromFloat(f.in[0].Float64[i], bits, b.Precision, b.Scale)
				if f.out.Decimal[i] = d; !ok {
					f.rejectRange(i)
				}
			})
		}
	case from == row.LayoutDecimal && to == row.LayoutInt64:
		low, high := rangeOf(b)
		return func(f *frame) {
			p := row.Pow10(a.Scale)
			f.each(func(i int) {
				q, _ := f.in[0].Decimal[i].QuoRem(p)
				x, ok := q.Int64()
				if ok {
					x, ok = mulInt64(x, mul)
				}
				if f.out.Int64[i] = x; !ok || x < low || x > high {
					f.rejectRange(i)
				}
			})
		}
	case from == row.LayoutDecimal && to == row.LayoutFloat64:
		single := b.Kind == row.Float
		return func(f *frame) {
			f.each(func(i int) {
				x := f.in[0].Decimal[i].Float64(a.Scale)
				if single {
					x = float64(float32(x))
				}
				f.out.Float64[i] = x
			})
		}
	}
	// DECIMAL to DECIMAL
	return func(f *frame) {
		f.each(func(i int) {
			d, ok := f.in[0].Decimal[i].Rescale(a.Scale, b.Scale)
			if f.out.Decimal[i] = d; !ok || !d.Fits(b.Precision) {
				f.rejectRange(i)
			}
		})
	}
}

// numericKernel writes a number as unbounded text.
func numericKernel(a row.Type) kernel {
	var scratch []byte
	return func(f *frame) {
		f.each(func(i int) {
			off := len(f.heap)
			if a.Kind == row.Boolean {
				f.heap = append(f.heap, '0'+byte(f.in[0].Int64[i]&1))
			} else {
				scratch = row.AppendText(scratch[:0], a, f.in[0], i, nil)
				heap, err := row.AppendNumeric(f.heap, scratch)
				if err != nil {
					f.reject(i, err.Error())
				}
				f.heap = heap
			}
			f.put(i, off)
		})
	}
}

// castTime casts between dates, times and timestamps; nil if it is something else.
func castTime(a, b row.Type, zone *time.Location) kernel {
	if !temporal(a) || !temporal(b) {
		return nil
	}
	if zone == nil {
		zone = time.UTC
	}
	per, cut := row.UnitsPerDay(a.Precision), int64(row.Pow10(9-min(b.Precision, 9)).Lo) // cut: nanoseconds in the last digit
	each := func(one func(f *frame, i int, x int64)) kernel {
		return func(f *frame) {
			f.each(func(i int) { one(f, i, f.in[0].Int64[i]) })
		}
	}
	local := func(x int64) int64 { // the wall clock of a
		if a.Kind == row.TimestampLTZ {
			return row.ToLocal(x, a.Precision, zone)
		}
		return x
	}
	toNanos := row.NanosPerDay / per
	switch {
	case a.Kind == row.Time: // to TIME
		return each(func(f *frame, i int, x int64) { f.out.Int64[i] = x - x%cut })
	case a.Kind == row.Date && b.Kind == row.Date:
		return each(func(f *frame, i int, x int64) { f.out.Int64[i] = x })
	case b.Kind == row.Date:
		return each(func(f *frame, i int, x int64) { f.out.Int64[i] = floorDiv(local(x), per) })
	case b.Kind == row.Time:
		return each(func(f *frame, i int, x int64) {
			n := floorMod(local(x), per) * toNanos
			f.out.Int64[i] = n - n%cut
		})
	case a.Kind == row.Date:
		return each(func(f *frame, i int, x int64) {
			y, err := row.TimestampOf(x, 0, b.Precision)
			if err != nil {
				f.rejectRange(i)
				return
			}
			if b.Kind == row.TimestampLTZ {
				y = row.FromLocal(y, b.Precision, zone)
			}
			f.out.Int64[i] = y
		})
	}
	return each(func(f *frame, i int, x int64) {
		if a.Kind != b.Kind && a.Kind == row.TimestampLTZ {
			x = row.ToLocal(x, a.Precision, zone)
		}
		days := floorDiv(x, per)
		y, err := row.TimestampOf(days, (x-days*per)*toNanos, b.Precision)
		if err != nil {
			f.rejectRange(i)
			return
		}
		if a.Kind != b.Kind && b.Kind == row.TimestampLTZ {
			y = row.FromLocal(y, b.Precision, zone)
		}
		f.out.Int64[i] = y
	})
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 {
	r := a % b
	if r < 0 {
		r += b
	}
	return r
}

// castNested casts arrays, maps and rows element by element, with a program of its own for each element type.
func castNested(a, b row.Type, s *Settings) (kernel, error) {
	element := func(from, to row.Type) (func(f *frame, i int, v *row.Vector, n int) *row.Vector, error) {
		e := castNode(&Column{T: from.Nullable()}, to, false) // one that fails makes the whole value fail, or NULL with TRY_CAST
		p, err := Compile([]Expr{e}, *s)
		if err != nil {
			return nil, err
		}
		return func(f *frame, i int, v *row.Vector, n int) *row.Vector {
			out, faults := p.Run(&row.Batch{Len: n, Cols: []*row.Vector{v}}, f.clock)
			if len(faults) > 0 {
				f.reject(i, faults[0].Message)
			}
			return out[0]
		}, nil
	}
	if a.Kind == row.Struct {
		return castStruct(a, b, element)
	}
	elem, err := element(*a.Elem, *b.Elem)
	if err != nil {
		return nil, err
	}
	var v row.Vector
	list := func(f *frame, i int, from, to row.Type, b []byte, cast func(f *frame, i int, v *row.Vector, n int) *row.Vector) []byte {
		l := row.ReadList(from, b)
		v.Truncate()
		for k := range l.Len() {
			l.AppendTo(&v, k)
		}
		v.Seal(l.Len())
		return row.AppendList(nil, to, cast(f, i, &v, l.Len()), nil, l.Len())
	}
	if a.Kind == row.Array {
		return func(f *frame) {
			f.each(func(i int) {
				off := len(f.heap)
				f.heap = append(f.heap, list(f, i, *a.Elem, *b.Elem, f.in[0].Bytes(i), elem)...)
				f.put(i, off)
			})
		}, nil
	}
	ka, va := row.MapTypes(a)
	kb, vb := row.MapTypes(b)
	key, err := element(ka, kb)
	if err != nil {
		return nil, err
	}
	value, err := element(va, vb)
	if err != nil {
		return nil, err
	}
	return func(f *frame) {
		f.each(func(i int) {
			off := len(f.heap)
			keys, values := row.SplitMap(f.in[0].Bytes(i))
			keys = list(f, i, ka, kb, keys, key)
			f.heap = row.AppendMap(f.heap, keys, list(f, i, va, vb, values, value))
			f.put(i, off)
		})
	}, nil
}

func castStruct(a, b row.Type, element func(from, to row.Type) (func(f *frame, i int, v *row.Vector, n int) *row.Vector, error)) (kernel, error) {
	casts := make([]func(f *frame, i int, v *row.Vector, n int) *row.Vector, len(a.Fields))
	for k := range a.Fields {
		var err error
		if casts[k], err = element(a.Fields[k].Type, b.Fields[k].Type); err != nil {
			return nil, err
		}
	}
	from, to := row.NewCodec(row.Schema(a.Fields).Types()), row.NewCodec(row.Schema(b.Fields).Types())
	vs := make([]row.Vector, len(a.Fields))
	out := make([]*row.Vector, len(a.Fields))
	return func(f *frame) {
		f.each(func(i int) {
			bin := [][]byte{f.in[0].Bytes(i)}
			for k := range vs {
				vs[k].Truncate()
				from.Decode(&vs[k], 0, k, bin)
				out[k] = casts[k](f, i, &vs[k], 1)
			}
			off := len(f.heap)
			f.heap = to.AppendColumns(f.heap, out, 0)
			f.put(i, off)
		})
	}, nil
}
