package options

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
)

// Check tells whether o takes the value; its error is a W6004 that says what o takes.
func (o Option) Check(value string) error {
	bad := func(want string) *errs.Error {
		return errs.New(errs.UnknownOption, "option %s does not take %q: it wants %s", o.Key, value, want)
	}
	switch o.Kind {
	case Bool:
		if _, err := ParseBool(value); err != nil {
			return bad("true or false")
		}
	case Int:
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil || !o.within(n) {
			return bad("an integer" + o.bounds())
		}
	case Duration:
		d, err := ParseDuration(value)
		if err != nil || !o.within(int64(d)) {
			return bad("a duration such as 50ms, 10 s or 2min" + o.bounds())
		}
	case Size:
		n, err := ParseSize(value)
		if err != nil || !o.within(n) {
			return bad("a size such as 512 kB, 64 MB or 2 GB" + o.bounds())
		}
	case Enum:
		if !slices.Contains(o.Values, normalEnum(value)) {
			e := bad("one of " + strings.Join(o.Values, ", "))
			if hint := nearest.Hint(value, o.Values); hint != "" {
				e.Hint = hint
			}
			return e
		}
	case SlotName:
		if len(value) == 0 || len(value) > 63 || strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return bad("a name of at most 63 lower-case letters, digits and underscores")
		}
	case Text:
		if strings.TrimSpace(value) == "" {
			return bad("a text that is not empty")
		}
	}
	return nil
}

// normal is the form in which a value is stored, so that equal definitions are equal texts.
func (o Option) normal(value string) string {
	switch o.Kind {
	case Enum:
		return normalEnum(value)
	case Bool:
		b, _ := ParseBool(value)
		return strconv.FormatBool(b)
	case Duration:
		d, _ := ParseDuration(value)
		return d.String()
	case Size:
		n, _ := ParseSize(value)
		return FormatSize(n)
	default:
		return strings.TrimSpace(value)
	}
}

func normalEnum(s string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), "-", "_")
}

func (o Option) within(n int64) bool {
	return (o.Min == 0 || n >= o.Min) && (o.Max == 0 || n <= o.Max)
}

func (o Option) bounds() string {
	show := func(n int64) string {
		switch o.Kind {
		case Duration:
			return time.Duration(n).String()
		case Size:
			return FormatSize(n)
		default:
			return strconv.FormatInt(n, 10)
		}
	}
	switch {
	case o.Min != 0 && o.Max != 0:
		return fmt.Sprintf(" from %s to %s", show(o.Min), show(o.Max))
	case o.Min != 0:
		return " of at least " + show(o.Min)
	case o.Max != 0:
		return " of at most " + show(o.Max)
	}
	return ""
}

// ParseBool takes true and false, and Postgres's on, off, yes, no, 1 and 0.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "on", "yes", "1":
		return true, nil
	case "false", "off", "no", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// ParseDuration takes Go's form (1m30s) and Flink's (10 s, 3 min, 1 day). A bare number is milliseconds, as in Flink.
func ParseDuration(s string) (time.Duration, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return 0, fmt.Errorf("%q is negative", s)
		}
		return d, nil
	}
	n, unit, err := numberAndUnit(s)
	if err != nil {
		return 0, err
	}
	unit = strings.TrimSuffix(unit, "s")
	factor := map[string]time.Duration{
		"": time.Millisecond, "n": time.Nanosecond, "nano": time.Nanosecond, "nanosecond": time.Nanosecond,
		"u": time.Microsecond, "µ": time.Microsecond, "micro": time.Microsecond, "microsecond": time.Microsecond,
		"m": time.Millisecond, "milli": time.Millisecond, "millisecond": time.Millisecond,
		"sec": time.Second, "second": time.Second,
		"min": time.Minute, "minute": time.Minute, "h": time.Hour, "hour": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour,
	}
	switch original := strings.TrimLeft(s, "0123456789. "); original {
	case "s":
		factor[unit] = time.Second // trimmed to "", which otherwise means milliseconds
	case "m":
		factor[unit] = time.Minute // while "ms", trimmed, is milliseconds
	}
	f, ok := factor[unit]
	if !ok {
		return 0, fmt.Errorf("%q is not a unit of time", unit)
	}
	d := n * float64(f)
	if d >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long", s)
	}
	return time.Duration(d), nil
}

// ParseSize takes a number with a unit: b, kB, MB, GB, TB, their forms with i, or only the letter. All are powers of 1024,
// as in Flink and Postgres. A bare number is bytes.
func ParseSize(s string) (int64, error) {
	n, unit, err := numberAndUnit(strings.ToLower(strings.TrimSpace(s)))
	if err != nil {
		return 0, err
	}
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "ytes"), "yte")
	shift := map[string]int{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20,
		"g": 30, "gb": 30, "gib": 30, "t": 40, "tb": 40, "tib": 40}
	bits, ok := shift[unit]
	if !ok {
		return 0, fmt.Errorf("%q is not a unit of size", unit)
	}
	v := n * float64(int64(1)<<bits)
	if v >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return int64(v), nil
}

func numberAndUnit(s string) (n float64, unit string, err error) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	n, err = strconv.ParseFloat(s[:i], 64)
	if err != nil {
		return 0, "", fmt.Errorf("%q does not begin with a number", s)
	}
	return n, strings.TrimSpace(s[i:]), nil
}

// FormatSize is the form that ParseSize reads back exactly.
func FormatSize(n int64) string {
	for _, u := range []struct {
		bits int
		name string
	}{{40, "TB"}, {30, "GB"}, {20, "MB"}, {10, "kB"}} {
		if unit := int64(1) << u.bits; n >= unit && n%unit == 0 {
			return fmt.Sprintf("%d %s", n/unit, u.name)
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}
