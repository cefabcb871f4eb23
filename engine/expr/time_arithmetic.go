package expr

import (
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// bindTimes is + - * / where the first argument is a date, a time, a timestamp or an interval.
func bindTimes(c *Call, s *Settings) (kernel, error) {
	ta, tb := c.Args[0].Type(), c.Args[1].Type()
	sign := int64(1)
	if c.Fn.name == "-" {
		sign = -1
	}
	switch {
	case c.Fn.name == "*" || c.Fn.name == "/":
		multiply := c.Fn.name == "*"
		low, high := rangeOf(c.T)
		return pairs(func(f *frame, i int, x, y int64) {
			ok := true
			switch {
			case multiply:
				x, ok = mulInt64(x, y)
			case y == 0:
				f.fail(i, errs.EvalDivisionByZero, "division by zero")
				return
			default:
				x /= y
			}
			f.setInt(i, x, ok && x >= low && x <= high)
		}), nil
	case interval(ta):
		low, high := rangeOf(c.T)
		return pairs(func(f *frame, i int, x, y int64) {
			z, ok := addInt64(x, y*sign)
			f.setInt(i, z, ok && z >= low && z <= high)
		}), nil
	case temporal(tb): // both have one type by now, in microseconds
		return pairs(func(f *frame, i int, x, y int64) {
			z, ok := subInt64(x, y)
			f.setInt(i, z, ok)
		}), nil
	case tb.Kind == row.IntervalMonths:
		return monthsKernel(ta, sign, s.Zone), nil
	}
	return spanKernel(ta, sign, c.Args[1]), nil
}

// pairs calls one for two arguments of the Int64 layout.
func pairs(one func(f *frame, i int, x, y int64)) kernel {
	return func(f *frame) {
		a, b := f.in[0].Int64, f.in[1].Int64
		f.each(func(i int) { one(f, i, a[i], b[i]) })
	}
}

// singles calls one for an argument of the Int64 layout.
func singles(one func(f *frame, i int, x int64)) kernel {
	return func(f *frame) {
		a := f.in[0].Int64
		f.each(func(i int) { one(f, i, a[i]) })
	}
}

func (f *frame) setInt(i int, x int64, ok bool) {
	if !ok {
		f.overflow(i)
		return
	}
	f.out.Int64[i] = x
}

// monthsKernel adds months; where the month is too short the day is its last.
func monthsKernel(t row.Type, sign int64, zone *time.Location) kernel {
	return pairs(func(f *frame, i int, x, months int64) {
		y, ok := addMonths(t, x, months*sign, zone)
		f.setInt(i, y, ok)
	})
}

func addMonths(t row.Type, x, months int64, zone *time.Location) (int64, bool) {
	if t.Kind == row.Date {
		days := addMonthsToDay(x, months)
		low, high := rangeOf(t)
		return days, days >= low && days <= high
	}
	if t.Kind == row.TimestampLTZ {
		x = row.ToLocal(x, t.Precision, zone)
	}
	per := row.UnitsPerDay(t.Precision)
	days := floorDiv(x, per)
	rest := x - days*per
	y, ok := mulInt64(addMonthsToDay(days, months), per)
	if ok {
		y, ok = addInt64(y, rest)
	}
	if t.Kind == row.TimestampLTZ {
		y = row.FromLocal(y, t.Precision, zone)
	}
	return y, ok
}

func addMonthsToDay(days, months int64) int64 {
	y, m, d := row.CivilDate(days)
	n := y*12 + m - 1 + months
	y, m = floorDiv(n, 12), floorMod(n, 12)+1
	return row.DaysFromCivil(y, m, min(d, row.DaysInMonth(y, m)))
}

// spanKernel adds an interval of microseconds. Digits that the type does not have are cut off.
func spanKernel(t row.Type, sign int64, by Expr) kernel {
	switch {
	case t.Kind == row.Date:
		low, high := rangeOf(t)
		return pairs(func(f *frame, i int, x, y int64) {
			z := floorDiv(x*row.MicrosPerDay+y*sign, row.MicrosPerDay)
			f.setInt(i, z, z >= low && z <= high)
		})
	case t.Kind == row.Time:
		digit := int64(row.Pow10(9 - min(t.Precision, 9)).Lo)
		return pairs(func(f *frame, i int, x, y int64) {
			z := floorMod(x+floorMod(y*sign, row.MicrosPerDay)*1000, row.NanosPerDay)
			f.out.Int64[i] = z - z%digit
		})
	case t.Precision > 6:
		digit := int64(row.Pow10(9 - min(t.Precision, 9)).Lo)
		return pairs(func(f *frame, i int, x, y int64) {
			n, ok := mulInt64(y, 1000*sign)
			z, ok2 := addInt64(x, n)
			f.setInt(i, z-floorMod(z, digit), ok && ok2)
		})
	}
	digit := int64(row.Pow10(6 - t.Precision).Lo)
	if c, constant := by.(*Const); digit > 1 && !(constant && !c.IsNull() && c.Int64()%digit == 0) {
		return pairs(func(f *frame, i int, x, y int64) {
			z, ok := addInt64(x, y)
			if sign < 0 {
				z, ok = subInt64(x, y)
			}
			f.setInt(i, z-floorMod(z, digit), ok)
		})
	}
	if sign < 0 {
		return func(f *frame) { differBig(f, f.in[0].Int64, f.in[1].Int64) }
	}
	return func(f *frame) { sumBig(f, f.in[0].Int64, f.in[1].Int64) }
}

// unit is a part of a date or time that SQL names.
type unit uint8

const (
	noUnit unit = iota
	unitNano
	unitMicro
	unitMilli
	unitSecond
	unitMinute
	unitHour
	unitDay
	unitWeek
	unitMonth
	unitQuarter
	unitYear
	unitDecade
	unitCentury
	unitMillennium
	unitDow
	unitIsoDow
	unitDoy
	unitIsoYear
	unitEpoch
)

// unitNamed finds a unit, also as a plural or with Calcite's prefix SQL_TSI_.
func unitNamed(name string) unit {
	name = strings.TrimPrefix(strings.ToUpper(name), "SQL_TSI_")
	u := unitOf(name)
	if u == noUnit {
		u = unitOf(strings.TrimSuffix(name, "S"))
	}
	return u
}

func unitOf(name string) unit {
	switch name {
	case "NANOSECOND":
		return unitNano
	case "MICROSECOND":
		return unitMicro
	case "MILLISECOND":
		return unitMilli
	case "SECOND":
		return unitSecond
	case "MINUTE":
		return unitMinute
	case "HOUR":
		return unitHour
	case "DAY", "DAYOFMONTH":
		return unitDay
	case "WEEK":
		return unitWeek
	case "MONTH":
		return unitMonth
	case "QUARTER":
		return unitQuarter
	case "YEAR":
		return unitYear
	case "DECADE":
		return unitDecade
	case "CENTURY":
		return unitCentury
	case "MILLENNIUM":
		return unitMillennium
	case "DOW", "DAYOFWEEK":
		return unitDow
	case "ISODOW":
		return unitIsoDow
	case "DOY", "DAYOFYEAR":
		return unitDoy
	case "ISOYEAR":
		return unitIsoYear
	case "EPOCH":
		return unitEpoch
	}
	return noUnit
}

// length of a unit in nanoseconds; 0 if it is counted in months or is no length.
func (u unit) length() int64 {
	switch u {
	case unitNano:
		return 1
	case unitMicro:
		return 1e3
	case unitMilli:
		return 1e6
	case unitSecond:
		return 1e9
	case unitMinute:
		return 60e9
	case unitHour:
		return 3600e9
	case unitDay:
		return row.NanosPerDay
	case unitWeek:
		return 7 * row.NanosPerDay
	}
	return 0
}

// months of a unit; 0 if it is none of months.
func (u unit) months() int64 {
	switch u {
	case unitMonth:
		return 1
	case unitQuarter:
		return 3
	case unitYear:
		return 12
	case unitDecade:
		return 120
	case unitCentury:
		return 1200
	case unitMillennium:
		return 12000
	}
	return 0
}

// constUnit reads the unit that argument k of a call names.
func constUnit(name string, e Expr) (unit, error) {
	c, ok := e.(*Const)
	if !ok || c.T.Kind != row.String || c.IsNull() {
		return noUnit, errs.New(errs.SQLTypeMismatch, "%s takes a unit such as DAY, this is %s", name, e)
	}
	u := unitNamed(c.Text())
	if u == noUnit {
		return u, errs.New(errs.SQLTypeMismatch, "%s: there is no unit %s", name, c.Text()).
			WithHint("units are YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND, MILLISECOND, MICROSECOND and NANOSECOND")
	}
	return u, nil
}
