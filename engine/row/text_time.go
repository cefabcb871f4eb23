package row

import (
	"time"
)

// How long things are.
const (
	MicrosPerSecond int64 = 1e6
	MicrosPerDay    int64 = 86400e6
	NanosPerDay     int64 = 86400e9
)

// UnitsPerDay is how many of a Timestamp's units of the precision are a day.
func UnitsPerDay(precision int) int64 {
	if precision > 6 {
		return NanosPerDay
	}
	return MicrosPerDay
}

// UnitsPerSecond is how many of a Timestamp's units of the precision are a second.
func UnitsPerSecond(precision int) int64 {
	if precision > 6 {
		return 1e9
	}
	return 1e6
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// CivilDate is the date of a day counted from 1970-01-01, in the Gregorian calendar without end in both directions.
func CivilDate(days int64) (year, month, day int64) {
	// Years are counted from March, so that the leap day is the last of its year; 146097 days are 400 years.
	z := days + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = doy - (153*mp+2)/5 + 1
	month = mp + 3
	year = yoe + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// DaysFromCivil is the inverse of CivilDate. Months beyond 12 and days beyond the month's end run on.
func DaysFromCivil(year, month, day int64) int64 {
	year += floorDiv(month-1, 12)
	month = month - 1 - floorDiv(month-1, 12)*12 + 1
	if month <= 2 {
		year--
	}
	era := floorDiv(year, 400)
	yoe := year - era*400
	mp := month - 3
	if month <= 2 {
		mp = month + 9
	}
	doy := (153*mp+2)/5 + day - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// DaysInMonth is 28 to 31.
func DaysInMonth(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// offset is what a clock in the zone is ahead of UTC, in seconds. Go's times keep the zone of the last look-up, so rows
// of one time of the year cost a few nanoseconds each.
func offset(seconds int64, zone *time.Location) int64 {
	_, o := time.Unix(seconds, 0).In(zone).Zone()
	return int64(o)
}

// ToLocal is what clocks in the zone show at an instant, as a Timestamp of the same precision. A nil zone is UTC.
func ToLocal(instant int64, precision int, zone *time.Location) int64 {
	if zone == nil || zone == time.UTC {
		return instant
	}
	per := UnitsPerSecond(precision)
	return instant + offset(floorDiv(instant, per), zone)*per
}

// FromLocal is the instant at which clocks in the zone show the Timestamp. One that they show twice is the first of the
// two; one that they leave out is as much after the leap as it is behind the time at which the leap was, as in Java.
func FromLocal(local int64, precision int, zone *time.Location) int64 {
	if zone == nil || zone == time.UTC {
		return local
	}
	per := UnitsPerSecond(precision)
	s := floorDiv(local, per)
	before := offset(s-86400, zone)
	if offset(s-before, zone) == before {
		return local - before*per
	}
	after := offset(s+86400, zone)
	if offset(s-after, zone) == after {
		return local - after*per
	}
	return local - before*per
}
