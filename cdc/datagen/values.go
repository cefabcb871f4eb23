package datagen

import (
	"math/bits"
	"strconv"
	"time"

	"github.com/weirstream/weir/engine/row"
)

const (
	golden     = 0x9E3779B97F4A7C15
	streamStep = 0xD1B54A32D192ED03 // between the columns' streams of draws
	hexDigits  = "0123456789abcdef"
)

// mix is the finalizer of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// column makes the values of one column.
type column struct {
	Field
	source *Source
	t      row.Type
	state  uint64
}

// draws is the state of row n, from which its draws are taken one after the other.
type draws uint64

func (c *column) draws(n int64) draws { return draws(mix(c.state + uint64(n)*golden)) }

func (d *draws) next() uint64 {
	*d += golden
	return mix(uint64(*d))
}

// unit is a number in [0, 1).
func (d *draws) unit() float64 { return float64(d.next()>>11) / (1 << 53) }

// fill appends the values of n rows.
func (c *column) fill(v *row.Vector, n int) {
	layout := c.t.Layout()
	step := int64(c.source.opts.Splits)
	for k := range n {
		number := c.source.next + int64(k)*step
		if c.Sequence {
			c.appendSequence(v, c.Start+number)
			continue
		}
		d := c.draws(number)
		if c.NullRate > 0 && d.unit() < c.NullRate {
			v.AppendNull(layout)
			continue
		}
		switch layout {
		case row.LayoutInt64:
			v.Int64 = append(v.Int64, c.integer(&d, number))
		case row.LayoutFloat64:
			u := d.unit()
			f := c.MinFloat*(1-u) + c.MaxFloat*u
			if c.t.Kind == row.Float {
				f = float64(float32(f))
			}
			v.Float64 = append(v.Float64, f)
		case row.LayoutDecimal:
			v.Decimal = append(v.Decimal, between(&d, c.Min, c.Max))
		case row.LayoutBytes:
			c.appendBytes(v, &d)
		}
	}
}

func (c *column) appendSequence(v *row.Vector, x int64) {
	switch c.t.Kind {
	case row.Float:
		v.Float64 = append(v.Float64, float64(float32(x)))
	case row.Double:
		v.Float64 = append(v.Float64, float64(x))
	case row.Decimal:
		d := row.Int128From(x)
		for range c.t.Scale {
			d = timesTen(d)
		}
		v.Decimal = append(v.Decimal, d)
	case row.String, row.Numeric:
		start := len(v.Heap)
		v.Heap = strconv.AppendInt(v.Heap, x, 10)
		v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(v.Heap) - start)})
	default:
		v.Int64 = append(v.Int64, x)
	}
}

// integer is a value of the Int64 layout.
func (c *column) integer(d *draws, number int64) int64 {
	switch c.t.Kind {
	case row.Boolean:
		return int64(d.next() >> 63)
	case row.Date, row.Time, row.Timestamp, row.TimestampLTZ:
		return c.time(d, number)
	case row.IntervalTime:
		return c.within(d) * 1000
	}
	return c.within(d)
}

// within is a number from Min to Max.
func (c *column) within(d *draws) int64 {
	low, _ := c.Min.Int64()
	high, _ := c.Max.Int64()
	span := uint64(high) - uint64(low) + 1
	x := d.next()
	if span == 0 { // all of them
		return int64(x)
	}
	above, _ := bits.Mul64(x, span)
	return int64(uint64(low) + above)
}

func (c *column) time(d *draws, number int64) int64 {
	at := c.source.at(number)
	if c.MaxPast > 0 {
		past, _ := bits.Mul64(d.next(), uint64(c.MaxPast)+1)
		at = at.Add(-time.Duration(past))
	}
	at = at.UTC()
	if c.t.Kind != row.TimestampLTZ {
		_, offset := at.In(c.source.opts.Zone).Zone()
		at = at.Add(time.Duration(offset) * time.Second)
	}
	unit := int64(1)
	for range 9 - min(c.t.Precision, 9) {
		unit *= 10
	}
	const day = int64(24 * time.Hour)
	ns := at.UnixNano()
	switch c.t.Kind {
	case row.Date:
		return floorDiv(ns, day)
	case row.Time:
		ns -= floorDiv(ns, day) * day
		return ns - ns%unit
	}
	ns = floorDiv(ns, unit) * unit
	if c.t.Precision > 6 {
		return ns
	}
	return floorDiv(ns, 1000)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// between is a number from low to high, drawn from 128 bits.
func between(d *draws, low, high row.Int128) row.Int128 {
	span, _ := high.Sub(low)
	lo, carry := bits.Add64(span.Lo, 1, 0)
	hi := uint64(span.Hi) + carry
	x1, x0 := d.next(), d.next()
	// The upper 128 bits of x*span.
	h00, _ := bits.Mul64(x0, lo)
	h01, l01 := bits.Mul64(x0, hi)
	h10, l10 := bits.Mul64(x1, lo)
	h11, l11 := bits.Mul64(x1, hi)
	mid, c1 := bits.Add64(h00, l01, 0)
	_, c2 := bits.Add64(mid, l10, 0)
	r0, c3 := bits.Add64(h01, h10, c1)
	r0, c4 := bits.Add64(r0, l11, c2)
	out, _ := low.Add(row.Int128{Hi: int64(h11 + c3 + c4), Lo: r0})
	return out
}

func (c *column) appendBytes(v *row.Vector, d *draws) {
	start := len(v.Heap)
	length := c.Length
	if c.VarLen {
		above, _ := bits.Mul64(d.next(), uint64(length))
		length = int(above) + 1
	}
	switch c.t.Kind {
	case row.Numeric:
		v.Heap = strconv.AppendInt(v.Heap, c.within(d), 10)
	case row.UUID:
		a, b := d.next(), d.next()
		a = a&^0xf000 | 0x4000 // version 4, random
		b = b&^(3<<62) | 1<<63 // variant 1
		for i := 56; i >= 0; i -= 8 {
			v.Heap = append(v.Heap, byte(a>>i))
		}
		for i := 56; i >= 0; i -= 8 {
			v.Heap = append(v.Heap, byte(b>>i))
		}
	case row.Bytes:
		var x uint64
		for i := range length {
			if i%8 == 0 {
				x = d.next()
			}
			v.Heap = append(v.Heap, byte(x))
			x >>= 8
		}
	case row.JSON:
		v.Heap = append(v.Heap, '"')
		c.appendHex(v, d, length)
		v.Heap = append(v.Heap, '"')
	default:
		c.appendHex(v, d, length)
	}
	v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(v.Heap) - start)})
}

func (c *column) appendHex(v *row.Vector, d *draws, length int) {
	var x uint64
	for i := range length {
		if i%16 == 0 {
			x = d.next()
		}
		v.Heap = append(v.Heap, hexDigits[x&15])
		x >>= 4
	}
}
