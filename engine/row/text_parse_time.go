package row

import (
	"errors"
	"fmt"
	"time"
)

var (
	errNotDate      = errors.New("not a date: expected year-month-day")
	errNotTime      = errors.New("not a time: expected hours:minutes:seconds")
	errNotTimestamp = errors.New("not a timestamp: expected year-month-day hours:minutes:seconds")
	errNotInterval  = errors.New("not an interval")
	errTimeRange    = errors.New("time out of range")
)

// takeInt takes digits off the front.
func takeInt(b []byte, maxDigits int) (x int64, rest []byte, ok bool) {
	n := digits(b)
	if n == 0 || n > maxDigits {
		return 0, b, false
	}
	for _, c := range b[:n] {
		x = x*10 + int64(c-'0')
	}
	return x, b[n:], true
}

// takeDate takes year[-month[-day]] off the front.
func takeDate(b []byte) (days int64, rest []byte, err error) {
	negative := len(b) > 0 && b[0] == '-'
	if negative || len(b) > 0 && b[0] == '+' {
		b = b[1:]
	}
	year, b, ok := takeInt(b, 6)
	if !ok {
		return 0, b, errNotDate
	}
	if negative {
		year = -year
	}
	month, day := int64(1), int64(1)
	if len(b) > 0 && b[0] == '-' {
		if month, b, ok = takeInt(b[1:], 2); !ok {
			return 0, b, errNotDate
		}
		if len(b) > 0 && b[0] == '-' {
			if day, b, ok = takeInt(b[1:], 2); !ok {
				return 0, b, errNotDate
			}
		}
	}
	if month < 1 || month > 12 || day < 1 || day > DaysInMonth(year, month) {
		return 0, b, errors.New("no such day in the calendar")
	}
	return DaysFromCivil(year, month, day), b, nil
}

// takeTime takes hours[:minutes[:seconds[.fraction]]] off the front, as nanoseconds.
func takeTime(b []byte) (nanos int64, rest []byte, err error) {
	h, b, ok := takeInt(b, 2)
	if !ok {
		return 0, b, errNotTime
	}
	var m, s, f int64
	if len(b) > 0 && b[0] == ':' {
		if m, b, ok = takeInt(b[1:], 2); !ok {
			return 0, b, errNotTime
		}
		if len(b) > 0 && b[0] == ':' {
			if s, b, ok = takeInt(b[1:], 2); !ok {
				return 0, b, errNotTime
			}
			f, b = takeFraction(b)
		}
	}
	if h > 23 || m > 59 || s > 59 {
		return 0, b, errors.New("no such time of day")
	}
	return ((h*60+m)*60+s)*1e9 + f, b, nil
}

// takeFraction takes .digits off the front, as nanoseconds; digits behind the ninth are dropped.
func takeFraction(b []byte) (nanos int64, rest []byte) {
	if len(b) < 2 || b[0] != '.' {
		return 0, b
	}
	n := digits(b[1:])
	unit := int64(1e8)
	for _, c := range b[1 : 1+n] {
		nanos += int64(c-'0') * unit
		unit /= 10
	}
	return nanos, b[1+n:]
}

// ParseDate reads days since 1970-01-01. A time behind the date is dropped.
func ParseDate(b []byte) (int64, error) {
	days, rest, err := takeDate(b)
	if err != nil {
		return 0, err
	}
	if len(rest) > 0 && (rest[0] == ' ' || rest[0] == 'T') {
		if _, rest, err = takeTime(rest[1:]); err != nil {
			return 0, errNotDate
		}
	}
	if len(rest) != 0 {
		return 0, errNotDate
	}
	return days, nil
}

// ParseTime reads nanoseconds of the day. A date before the time is dropped.
func ParseTime(b []byte) (int64, error) {
	for i, c := range b {
		if c == ' ' || c == 'T' {
			if _, rest, err := takeDate(b[:i]); err != nil || len(rest) != 0 {
				return 0, errNotTime
			}
			b = b[i+1:]
			break
		}
	}
	nanos, rest, err := takeTime(b)
	if err != nil {
		return 0, err
	}
	if len(rest) != 0 {
		return 0, errNotTime
	}
	return nanos, nil
}

// takeTimestamp takes date[ time] off the front.
func takeTimestamp(b []byte) (days, nanos int64, rest []byte, err error) {
	if days, rest, err = takeDate(b); err != nil {
		if errors.Is(err, errNotDate) {
			err = errNotTimestamp
		}
		return 0, 0, rest, err
	}
	if len(rest) > 1 && (rest[0] == ' ' || rest[0] == 'T') && rest[1] >= '0' && rest[1] <= '9' {
		if nanos, rest, err = takeTime(rest[1:]); err != nil {
			return 0, 0, rest, err
		}
	}
	return days, nanos, rest, nil
}

// TimestampOf is the number of a Timestamp of the precision, with digits beyond the precision cut off.
func TimestampOf(days, nanos int64, precision int) (int64, error) {
	if precision < 9 {
		nanos -= nanos % int64(pow10(9-precision))
	}
	if precision > 6 {
		if days < -106751 || days > 106750 {
			return 0, fmt.Errorf("a TIMESTAMP(%d) lies between the years 1678 and 2261", precision)
		}
		return days*NanosPerDay + nanos, nil
	}
	if days < -106751990 || days > 106751990 {
		return 0, errTimeRange
	}
	return days*MicrosPerDay + nanos/1000, nil
}

// ParseTimestamp reads a Timestamp of the precision; digits beyond it are cut off.
func ParseTimestamp(b []byte, precision int) (int64, error) {
	days, nanos, rest, err := takeTimestamp(b)
	if err != nil {
		return 0, err
	}
	if len(rest) != 0 {
		return 0, errNotTimestamp
	}
	return TimestampOf(days, nanos, precision)
}

// ParseTimestampLTZ reads an instant: a timestamp with Z or an offset such as +02:00 behind it, or one that clocks in the
// zone show.
func ParseTimestampLTZ(b []byte, precision int, zone *time.Location) (int64, error) {
	days, nanos, rest, err := takeTimestamp(b)
	if err != nil {
		return 0, err
	}
	x, err := TimestampOf(days, nanos, precision)
	if err != nil {
		return 0, err
	}
	for len(rest) > 0 && rest[0] == ' ' {
		rest = rest[1:]
	}
	switch {
	case len(rest) == 0:
		return FromLocal(x, precision, zone), nil
	case string(rest) == "Z" || string(rest) == "UTC":
		return x, nil
	case rest[0] == '+' || rest[0] == '-':
		h, tail, ok := takeInt(rest[1:], 4)
		if !ok {
			return 0, errNotTimestamp
		}
		m := int64(0)
		if len(tail) > 0 && tail[0] == ':' {
			if m, tail, ok = takeInt(tail[1:], 2); !ok {
				return 0, errNotTimestamp
			}
		} else if h > 99 {
			h, m = h/100, h%100
		}
		if len(tail) != 0 || h > 18 || m > 59 {
			return 0, errNotTimestamp
		}
		o := (h*60 + m) * 60 * UnitsPerSecond(precision)
		if rest[0] == '+' {
			o = -o
		}
		return x + o, nil
	}
	return 0, errNotTimestamp
}

// parseIntervalMonths reads [+-]years-months, or months alone.
func parseIntervalMonths(b []byte) (int64, error) {
	negative := len(b) > 0 && b[0] == '-'
	if negative || len(b) > 0 && b[0] == '+' {
		b = b[1:]
	}
	x, rest, ok := takeInt(b, 9)
	if ok && len(rest) > 0 && rest[0] == '-' {
		var m int64
		if m, rest, ok = takeInt(rest[1:], 2); m > 11 {
			return 0, errNotInterval
		}
		x = x*12 + m
	}
	if !ok || len(rest) != 0 {
		return 0, errNotInterval
	}
	if negative {
		x = -x
	}
	return x, nil
}

// parseIntervalTime reads [+-]days hours:minutes:seconds[.fraction].
func parseIntervalTime(b []byte) (int64, error) {
	negative := len(b) > 0 && b[0] == '-'
	if negative || len(b) > 0 && b[0] == '+' {
		b = b[1:]
	}
	days, rest, ok := takeInt(b, 8)
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		days, rest = 0, b
	} else {
		rest = rest[1:]
	}
	nanos, rest, err := takeTime(rest)
	if err != nil || len(rest) != 0 {
		return 0, errNotInterval
	}
	x := days*MicrosPerDay + nanos/1000
	if negative {
		x = -x
	}
	return x, nil
}
