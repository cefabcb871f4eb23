package expr

import (
	"time"

	"github.com/weirstream/weir/engine/row"
)

// clockOf turns values of a type into what clocks show: a day and nanoseconds of it.
type clockOf struct {
	t       row.Type
	zone    *time.Location
	per     int64 // the type's units in a day
	toNanos int64
	// The day that the last value was in, so that its neighbours need no division.
	begin, day int64
	known      bool
}

func newClockOf(t row.Type, zone *time.Location) *clockOf {
	c := &clockOf{t: t, zone: zone}
	switch t.Kind {
	case row.Date:
		c.per = 1
	case row.Time:
		c.per = row.NanosPerDay
	default:
		c.per = row.UnitsPerDay(t.Precision)
	}
	c.toNanos = row.NanosPerDay / c.per
	return c
}

func (c *clockOf) split(x int64) (day, nanos int64) {
	if c.t.Kind == row.TimestampLTZ {
		x = row.ToLocal(x, c.t.Precision, c.zone)
	}
	if d := uint64(x - c.begin); c.known && d < uint64(c.per) {
		return c.day, int64(d) * c.toNanos
	}
	day = floorDiv(x, c.per)
	c.known, c.day, c.begin = true, day, day*c.per
	return day, (x - c.begin) * c.toNanos
}

// join is the inverse of split.
func (c *clockOf) join(day, nanos int64) (int64, bool) {
	if c.t.Kind == row.Date {
		low, high := rangeOf(c.t)
		return day, day >= low && day <= high
	}
	x, ok := mulInt64(day, c.per)
	if ok {
		x, ok = addInt64(x, nanos/c.toNanos)
	}
	if c.t.Kind == row.TimestampLTZ {
		x = row.FromLocal(x, c.t.Precision, c.zone)
	}
	return x, ok
}

// fieldKernel extracts a unit.
func fieldKernel(t row.Type, u unit, zone *time.Location) kernel {
	if t.Kind == row.IntervalMonths || t.Kind == row.IntervalTime {
		return intervalField(u)
	}
	c := newClockOf(t, zone)
	switch u {
	case unitEpoch:
		per := row.UnitsPerSecond(t.Precision)
		switch t.Kind {
		case row.Date:
			return singles(func(f *frame, i int, x int64) { f.out.Int64[i] = x * 86400 })
		case row.Time:
			per = 1e9
		}
		return singles(func(f *frame, i int, x int64) { f.out.Int64[i] = floorDiv(x, per) })
	case unitNano, unitMicro, unitMilli:
		l := u.length()
		return singles(func(f *frame, i int, x int64) {
			_, n := c.split(x)
			f.out.Int64[i] = n % 1e9 / l
		})
	case unitSecond, unitMinute, unitHour:
		l, mod := u.length(), int64(60)
		if u == unitHour {
			mod = 24
		}
		return singles(func(f *frame, i int, x int64) {
			_, n := c.split(x)
			f.out.Int64[i] = n / l % mod
		})
	}
	// The field is the day's: it is computed once for neighbours of one day.
	last, value, known := int64(0), int64(0), false
	return singles(func(f *frame, i int, x int64) {
		day, _ := c.split(x)
		if !known || day != last {
			last, value, known = day, dayField(u, day), true
		}
		f.out.Int64[i] = value
	})
}

func intervalField(u unit) kernel {
	return singles(func(f *frame, i int, x int64) {
		switch u {
		case unitYear:
			x /= 12
		case unitMonth:
			x %= 12
		case unitQuarter:
			x = x%12/3 + 1
		case unitDay:
			x /= row.MicrosPerDay
		case unitHour:
			x = x % row.MicrosPerDay / 3600e6
		case unitMinute:
			x = x % 3600e6 / 60e6
		case unitSecond:
			x = x % 60e6 / 1e6
		case unitMilli:
			x = x % 1e6 / 1e3
		case unitMicro:
			x %= 1e6
		case unitEpoch:
			x /= 1e6
		}
		f.out.Int64[i] = x
	})
}

// dayField is a unit of a day counted from 1970.
func dayField(u unit, day int64) int64 {
	y, m, d := row.CivilDate(day)
	switch u {
	case unitDay:
		return d
	case unitMonth:
		return m
	case unitQuarter:
		return (m-1)/3 + 1
	case unitYear:
		return y
	case unitDecade:
		return floorDiv(y, 10)
	case unitCentury:
		return periodOf(y, 100)
	case unitMillennium:
		return periodOf(y, 1000)
	case unitDow:
		return floorMod(day+4, 7) + 1
	case unitIsoDow:
		return floorMod(day+3, 7) + 1
	case unitDoy:
		return day - row.DaysFromCivil(y, 1, 1) + 1
	}
	// ISO: a week belongs to the year of its Thursday.
	thursday := day - floorMod(day+3, 7) + 3
	ty, _, _ := row.CivilDate(thursday)
	if u == unitIsoYear {
		return ty
	}
	return (thursday-row.DaysFromCivil(ty, 1, 1))/7 + 1
}

// periodOf counts centuries and millennia as historians do: there is no year 0, and 2000 is in the 20th.
func periodOf(year, length int64) int64 {
	if year > 0 {
		return (year + length - 1) / length
	}
	return (year - length + 1) / length
}

// floorDay is the first day of the unit that a day is in.
func floorDay(u unit, day int64) int64 {
	switch u {
	case unitDay:
		return day
	case unitWeek: // from Sunday, as in Flink
		return day - floorMod(day+4, 7)
	case unitIsoYear:
		return day - (dayField(unitWeek, day)-1)*7 - floorMod(day+3, 7)
	}
	y, m, _ := row.CivilDate(day)
	switch n := u.months(); {
	case n >= 1200: // centuries begin with year 1
		years := n / 12
		y, m = (periodOf(y, years)-1)*years+1, 1
	case n >= 12:
		y, m = floorDiv(y, n/12)*(n/12), 1
	default:
		m = (m-1)/n*n + 1
	}
	return row.DaysFromCivil(y, m, 1)
}

// roundKernel is FLOOR(t TO unit), or CEIL.
func roundKernel(t row.Type, u unit, up bool, zone *time.Location) kernel {
	c := newClockOf(t, zone)
	last, first, next, known := int64(0), int64(0), int64(0), false
	return singles(func(f *frame, i int, x int64) {
		day, n := c.split(x)
		if l := u.length(); l != 0 && l < row.NanosPerDay {
			r := n % l
			if up && r != 0 {
				n += l
			}
			n -= r
			if t.Kind == row.Time {
				n %= row.NanosPerDay
			}
			y, ok := c.join(day, n)
			f.setInt(i, y, ok)
			return
		}
		if t.Kind == row.Time {
			f.out.Int64[i] = 0
			return
		}
		if !known || day != last {
			last, first, known = day, floorDay(u, day), true
			switch {
			case u == unitDay:
				next = first + 1
			case u == unitWeek:
				next = first + 7
			case u == unitIsoYear:
				next = floorDay(u, first+370)
			default:
				next = addMonthsToDay(first, u.months())
			}
		}
		if up && (day != first || n != 0) {
			day = next
		} else {
			day = first
		}
		y, ok := c.join(day, 0)
		f.setInt(i, y, ok)
	})
}

// diffKernel is TIMESTAMPDIFF: how many whole units fit between two timestamps of one type.
func diffKernel(t row.Type, u unit, zone *time.Location) kernel {
	a, b := newClockOf(t, zone), newClockOf(t, zone)
	return pairs(func(f *frame, i int, x, y int64) {
		xd, xn := a.split(x)
		yd, yn := b.split(y)
		var n int64
		ok := true
		if l := u.length(); l != 0 {
			// In 128 bits: the years between may be more than 292, which is what 63 bits of nanoseconds hold.
			total, _ := row.MulInt64(yd-xd, row.NanosPerDay).Add(row.Int128From(yn - xn))
			q, _ := total.QuoRem(row.Int128From(l))
			n, ok = q.Int64()
		} else {
			xy, xm, xday := row.CivilDate(xd)
			yy, ym, yday := row.CivilDate(yd)
			n = (yy*12 + ym) - (xy*12 + xm)
			before := func(d1, n1, d2, n2 int64) bool { return d1 < d2 || d1 == d2 && n1 < n2 }
			switch {
			case n > 0 && before(yday, yn, xday, xn):
				n--
			case n < 0 && before(xday, xn, yday, yn):
				n++
			}
			n /= u.months()
		}
		low, high := rangeOf(f.e.Type())
		f.setInt(i, n, ok && n >= low && n <= high)
	})
}
