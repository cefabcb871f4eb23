package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Unknown stands where a number would be a guess.
const Unknown = "–"

// Bytes is a size with a unit. Units are powers of 1024 and say so.
func Bytes(n int64) string {
	if n < 0 {
		return Unknown
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for ; v >= 1023.95 && i < len(units)-1; i++ {
		v /= 1024
	}
	return threeDigits(v) + " " + units[i]
}

// Count is a number that stays short: 999, 12.4k, 3.1M.
func Count(n int64) string {
	if n < 0 {
		return Unknown
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	v, units := float64(n), []string{"", "k", "M", "G", "T", "P", "E"}
	i := 0
	for ; v >= 999.95 && i < len(units)-1; i++ {
		v /= 1000
	}
	return threeDigits(v) + units[i]
}

// threeDigits shows one decimal below 100, none above.
func threeDigits(v float64) string {
	if v >= 99.95 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// RowRate and ByteRate are numbers per second.
func RowRate(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return Unknown
	}
	if v > 0 && v < 10 {
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " rows/s"
	}
	return Count(int64(math.Round(v))) + " rows/s"
}

// ByteRate is bytes per second.
func ByteRate(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return Unknown
	}
	return Bytes(int64(v)) + "/s"
}

// Took is a duration with at most two units: 180ms, 2m10s, 3d4h.
func Took(d time.Duration) string {
	switch {
	case d < 0:
		return Unknown
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + "µs"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < 10*time.Second:
		return strings.TrimSuffix(strconv.FormatFloat(d.Seconds(), 'f', 1, 64), ".0") + "s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	}
	two := func(big, small time.Duration, b, s string) string {
		out := strconv.Itoa(int(d/big)) + b
		if rest := d % big / small; rest > 0 {
			out += strconv.Itoa(int(rest)) + s
		}
		return out
	}
	switch {
	case d < time.Hour:
		return two(time.Minute, time.Second, "m", "s")
	case d < 24*time.Hour:
		return two(time.Hour, time.Minute, "h", "m")
	}
	return two(24*time.Hour, time.Hour, "d", "h")
}

// Millis is a duration in milliseconds, -1 being unknown.
func Millis(ms int64) string { return Took(time.Duration(ms) * time.Millisecond) }

// Seconds is a duration in seconds, -1 being unknown.
func Seconds(s int64) string { return Took(time.Duration(s) * time.Second) }

// Ago is the age of a moment. Clocks differ a little between machines, so what lies ahead is now.
func Ago(now, then time.Time) string {
	if then.IsZero() {
		return Unknown
	}
	d := now.Sub(then)
	if d < time.Second {
		return "now"
	}
	return Took(d.Truncate(time.Second)) + " ago"
}

// Plural is a count with its noun.
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
