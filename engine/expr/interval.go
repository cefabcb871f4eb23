package expr

import (
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Interval is the constant of a literal: INTERVAL '10' SECOND is Interval("10", "SECOND", ""), INTERVAL '1-2' YEAR TO
// MONTH is Interval("1-2", "YEAR", "MONTH").
func Interval(text, from, to string) (*Const, error) {
	bad := func() error {
		q := from
		if to != "" {
			q += " TO " + to
		}
		return errs.New(errs.SQLTypeMismatch, "'%s' is no INTERVAL %s", text, q).
			WithHint("intervals are written INTERVAL '2' DAY, INTERVAL '1-6' YEAR TO MONTH, INTERVAL '1 10:30:00.5' DAY TO SECOND")
	}
	first, last := unitNamed(from), unitNamed(from)
	if to != "" {
		last = unitNamed(to)
	}
	fields := intervalFields(first, last)
	if fields == nil {
		return nil, bad()
	}
	rest := strings.TrimSpace(text)
	negative := strings.HasPrefix(rest, "-")
	if negative || strings.HasPrefix(rest, "+") {
		rest = rest[1:]
	}
	var total int64
	for k, u := range fields {
		end := strings.IndexAny(rest, "- :")
		if k == len(fields)-1 {
			end = len(rest)
		}
		if end <= 0 {
			return nil, bad()
		}
		part := rest[:end]
		rest = rest[min(end+1, len(rest)):]
		n, ok := intervalPart(part, u, k > 0)
		if ok {
			total, ok = addInt64(total, n)
		}
		if !ok {
			return nil, bad()
		}
	}
	if rest != "" {
		return nil, bad()
	}
	if negative {
		total = -total
	}
	if first.months() != 0 {
		low, high := rangeOf(kind(row.IntervalMonths))
		if total < low || total > high {
			return nil, bad()
		}
		return Int(kind(row.IntervalMonths), total), nil
	}
	return Int(kind(row.IntervalTime), total), nil
}

// intervalFields are the units between two, nil if they do not make an interval.
func intervalFields(first, last unit) []unit {
	if first == last && (first.months() != 0 || first.length() >= 1000) {
		return []unit{first}
	}
	if first == unitYear && last == unitMonth {
		return []unit{unitYear, unitMonth}
	}
	times := []unit{unitDay, unitHour, unitMinute, unitSecond}
	from, to := -1, -1
	for k, u := range times {
		if u == first {
			from = k
		}
		if u == last {
			to = k
		}
	}
	if from < 0 || to <= from {
		return nil
	}
	return times[from : to+1]
}

// intervalPart is a number of a unit, as months or microseconds. One that is not the first is less than what is before it.
func intervalPart(s string, u unit, inner bool) (int64, bool) {
	scale := 0
	if u == unitSecond {
		scale = 6
	}
	d, err := row.ParseDecimal([]byte(s), 18, scale)
	if err != nil || d.Sign() < 0 || strings.ContainsAny(s, "eE+- ") || scale == 0 && strings.Contains(s, ".") {
		return 0, false
	}
	n, ok := d.Int64()
	if u == unitSecond {
		return n, ok && (!inner || n < 60e6)
	}
	if inner {
		limit := map[unit]int64{unitMonth: 12, unitHour: 24, unitMinute: 60}[u]
		if n >= limit {
			return 0, false
		}
	}
	if m := u.months(); m != 0 {
		return mulInt64(n, m)
	}
	return mulInt64(n, u.length()/1000)
}
