package expr

import (
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

func timeFunctions() []*Function {
	ltz3 := row.Type{Kind: row.TimestampLTZ, Precision: 3}
	millis := func(clock int64, _ *time.Location) int64 { return clock - floorMod(clock, 1000) }
	fs := []*Function{
		clockFn("CURRENT_TIMESTAMP|NOW", ltz3, millis),
		clockFn("PROCTIME", ltz3, millis),
		clockFn("CURRENT_ROW_TIMESTAMP", ltz3, millis),
		clockFn("LOCALTIMESTAMP", timestampType(3), func(clock int64, z *time.Location) int64 {
			return row.ToLocal(clock-floorMod(clock, 1000), 3, z)
		}),
		clockFn("CURRENT_DATE", kind(row.Date), func(clock int64, z *time.Location) int64 {
			return floorDiv(row.ToLocal(clock, 6, z), row.MicrosPerDay)
		}),
		clockFn("CURRENT_TIME|LOCALTIME", kind(row.Time), func(clock int64, z *time.Location) int64 {
			n := floorMod(row.ToLocal(clock, 6, z), row.MicrosPerDay) * 1000
			return n - n%1e9
		}),
		{name: "EXTRACT", resolve: func(f *Function, args []Expr) (Expr, error) {
			if len(args) != 2 {
				return nil, takes(f, "a unit and a time")
			}
			u, err := constUnit(f.name, args[0])
			if err != nil {
				return nil, err
			}
			return resolveField(f, u, args[1], args)
		}, bind: bindField, cost: 6},
		{name: "TIMESTAMPADD", resolve: resolveTimestampAdd},
		{name: "TIMESTAMPDIFF", faults: true, resolve: resolveTimestampDiff, cost: 12, bind: func(c *Call, s *Settings) (kernel, error) {
			u, err := constUnit(c.Fn.name, c.Args[0])
			k := diffKernel(c.Args[1].Type(), u, s.Zone)
			return func(f *frame) { withoutFirst(f, k) }, err
		}},
		{name: "DATE_TRUNC", sig: "kt", result: returnsArg(1), faults: true, cost: 10, bind: func(c *Call, s *Settings) (kernel, error) {
			u, err := constUnit(c.Fn.name, c.Args[0])
			if err != nil {
				return nil, err
			}
			if u == unitWeek { // Postgres's begins on Monday, unlike FLOOR's
				k := isoWeekKernel(c.Args[1].Type(), s.Zone)
				return func(f *frame) { withoutFirst(f, k) }, nil
			}
			if u.length() == 0 && u.months() == 0 && u != unitIsoYear {
				return nil, errs.New(errs.SQLTypeMismatch, "DATE_TRUNC does not cut to %s", c.Args[0])
			}
			k := roundKernel(c.Args[1].Type(), u, false, s.Zone)
			return func(f *frame) { withoutFirst(f, k) }, nil
		}},
		{name: "DATE_FORMAT", sig: "Ts|ss", resolve: resolveDateFormat, bind: bindDateFormat, cost: 30, faults: true},
		{name: "TO_DATE", sig: "s?s", result: returns(kind(row.Date)), nullable: true, bind: bindToTime(kind(row.Date)), cost: 40, faults: true},
		{name: "TO_TIMESTAMP", sig: "s?s", result: returns(timestampType(3)), nullable: true, bind: bindToTime(timestampType(3)), cost: 40, faults: true},
		{name: "TO_TIMESTAMP_LTZ", sig: "i?i|d?i|s?ss", result: returns(ltz3), nullable: true, bind: bindToLTZ, cost: 10, faults: true},
		{name: "UNIX_TIMESTAMP", resolve: resolveUnixTimestamp},
		{name: "UNIX_TIMESTAMP OF", hidden: true, sig: "s?s", result: bigint, nullable: true, bind: bindUnixTimestamp, cost: 40, faults: true,
			print: func(c *Call) string { return "UNIX_TIMESTAMP(" + joinExprs(c.Args, ", ") + ")" }},
		{name: "FROM_UNIXTIME", sig: "i?s", result: text, bind: bindFromUnixTime, cost: 40, faults: true},
		{name: "CONVERT_TZ", sig: "sss", result: text, nullable: true, bind: bindConvertTZ, cost: 60, faults: true},
		{name: "OVERLAPS", hidden: true, resolve: resolveOverlaps},
		{name: "AT TIME ZONE", hidden: true, sig: "Ts", print: printInfix, faults: true, cost: 20, bind: bindAtTimeZone, result: func(args []Expr) row.Type {
			t := args[0].Type()
			switch t.Kind {
			case row.TimestampLTZ:
				return timestampType(t.Precision)
			case row.Date:
				return row.Type{Kind: row.TimestampLTZ}
			}
			return row.Type{Kind: row.TimestampLTZ, Precision: t.Precision}
		}},
	}
	fields := map[string]unit{"YEAR": unitYear, "QUARTER": unitQuarter, "MONTH": unitMonth, "WEEK": unitWeek, "DAYOFYEAR": unitDoy, "DAYOFMONTH": unitDay,
		"DAYOFWEEK": unitDow, "HOUR": unitHour, "MINUTE": unitMinute, "SECOND": unitSecond}
	for name, u := range fields {
		fs = append(fs, &Function{name: name, cost: 6, bind: func(c *Call, s *Settings) (kernel, error) {
			return fieldKernel(c.Args[0].Type(), u, s.Zone), nil
		}, resolve: func(f *Function, args []Expr) (Expr, error) {
			if len(args) != 1 {
				return nil, takes(f, "a date or timestamp")
			}
			e, err := resolveField(f, u, args[0], args)
			if c, ok := e.(*Call); ok {
				c.Args = c.Args[1:]
			}
			return e, err
		}})
	}
	return fs
}

// resolveDateFormat reads a text as a timestamp first, as Flink does.
func resolveDateFormat(f *Function, args []Expr) (Expr, error) {
	out, ok := f.match(args)
	if !ok {
		return nil, f.mismatch(args)
	}
	if out[0].Type().Kind == row.String {
		out = append([]Expr{&Cast{Arg: out[0], T: timestampType(3), Try: true}}, out[1:]...)
	}
	return f.typed(out, kind(row.String)), nil
}

// clockFn is a function of the clock alone.
func clockFn(name string, t row.Type, of func(clock int64, zone *time.Location) int64) *Function {
	return &Function{name: name, result: returns(t), notNull: true, volatile: clockFunction, cost: 1, print: func(c *Call) string {
		if strings.HasPrefix(c.Fn.name, "PROC") || strings.HasPrefix(c.Fn.name, "CURRENT_ROW") {
			return c.Fn.name + "()"
		}
		return c.Fn.name
	}, bind: func(_ *Call, s *Settings) (kernel, error) {
		return func(f *frame) {
			x := of(f.clock, s.Zone)
			for i := range f.out.Int64 {
				f.out.Int64[i] = x
			}
		}, nil
	}}
}

// withoutFirst runs a kernel that does not know of the first argument, a constant word.
func withoutFirst(f *frame, k kernel) {
	all := f.in
	f.in = all[1:]
	k(f)
	f.in = all
}

func resolveField(f *Function, u unit, e Expr, given []Expr) (Expr, error) {
	t := e.Type()
	if !interval(t) {
		x, ok := matchArg('t', e)
		if !ok {
			return nil, f.mismatch(given)
		}
		e, t = x, x.Type()
	}
	switch {
	case t.Kind == row.Date && u.length() != 0 && u.length() < row.NanosPerDay,
		t.Kind == row.Time && u != unitEpoch && (u.length() == 0 || u.length() >= row.NanosPerDay):
		return nil, errs.New(errs.SQLTypeMismatch, "a %s has no %s", t.Nullable(), f.name).WithDetail("in %s(%s)", f.name, joinExprs(given, ", "))
	}
	word := given[0]
	if len(given) == 1 {
		word = Str(f.name)
	}
	return f.typed([]Expr{word, e}, kind(row.BigInt)), nil
}

func bindField(c *Call, s *Settings) (kernel, error) {
	u, err := constUnit(c.Fn.name, c.Args[0])
	k := fieldKernel(c.Args[1].Type(), u, s.Zone)
	return func(f *frame) { withoutFirst(f, k) }, err
}

// resolveTimestampAdd makes TIMESTAMPADD(u, n, t) what it stands for: t + n * INTERVAL '1' u.
func resolveTimestampAdd(f *Function, args []Expr) (Expr, error) {
	if len(args) != 3 {
		return nil, takes(f, "a unit, a number and a time")
	}
	u, err := constUnit(f.name, args[0])
	if err != nil {
		return nil, err
	}
	n, ok1 := matchArg('i', args[1])
	t, ok2 := matchArg('t', args[2])
	if !ok1 || !ok2 {
		return nil, f.mismatch(args)
	}
	var one *Const
	switch {
	case u.months() != 0:
		one = Int(kind(row.IntervalMonths), u.months())
	case u.length() >= 1000:
		one = Int(kind(row.IntervalTime), u.length()/1000)
		if t.Type().Kind == row.Date && u.length() < row.NanosPerDay {
			t = castNode(t, timestampType(0), false)
		}
	default:
		return nil, errs.New(errs.SQLTypeMismatch, "TIMESTAMPADD does not add %s", args[0])
	}
	span, err := Resolve("*", []Expr{one, n})
	if err != nil {
		return nil, err
	}
	return Resolve("+", []Expr{t, span})
}

func resolveTimestampDiff(f *Function, args []Expr) (Expr, error) {
	if len(args) != 3 {
		return nil, takes(f, "a unit and two times")
	}
	u, err := constUnit(f.name, args[0])
	if err != nil {
		return nil, err
	}
	if u.length() == 0 && u.months() == 0 {
		return nil, errs.New(errs.SQLTypeMismatch, "TIMESTAMPDIFF does not count %s", args[0])
	}
	a, ok1 := matchArg('T', args[1])
	b, ok2 := matchArg('T', args[2])
	if !ok1 || !ok2 {
		return nil, f.mismatch(args)
	}
	two, _, err := unify(f.name, []Expr{a, b})
	if err != nil {
		return nil, err
	}
	t := kind(row.Int)
	if u.length() != 0 && u.length() < 1e9 { // Flink says INT here as well, where 25 days of milliseconds do not fit
		t = kind(row.BigInt)
	}
	return f.typed([]Expr{args[0], two[0], two[1]}, t), nil
}

func isoWeekKernel(t row.Type, zone *time.Location) kernel {
	c := newClockOf(t, zone)
	return singles(func(f *frame, i int, x int64) {
		day, _ := c.split(x)
		y, ok := c.join(day-floorMod(day+3, 7), 0)
		f.setInt(i, y, ok)
	})
}

// bindToTime is TO_DATE and TO_TIMESTAMP: NULL where the text is none.
func bindToTime(t row.Type) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		return parseTimes(c, t, func(x int64, _ *frame, _ int) (int64, bool) { return x, true })
	}
}

// parseTimes reads the first argument, by the pattern of the second if there is one, as a value of t, and lets then
// finish it.
func parseTimes(c *Call, t row.Type, then func(x int64, f *frame, i int) (int64, bool)) (kernel, error) {
	plain := func(b []byte) (int64, error) { return row.ParseTimestamp(b, t.Precision) }
	if t.Kind == row.Date {
		plain = row.ParseDate
	}
	var po *patternOf
	if len(c.Args) > 1 {
		var err error
		if po, err = newPatternOf(c.Args[1]); err != nil {
			return nil, err
		}
	}
	return func(f *frame) {
		f.each(func(i int) {
			b := f.in[0].Bytes(i)
			var x int64
			ok := true
			if po == nil {
				var err error
				x, err = plain(b)
				ok = err == nil
			} else {
				p, valid := po.of(f, 1, i)
				if !valid {
					return
				}
				var nanos int64
				if x, nanos, ok = p.parse(b); ok && t.Kind != row.Date {
					var err error
					x, err = row.TimestampOf(x, nanos, t.Precision)
					ok = err == nil
				}
			}
			if ok {
				x, ok = then(x, f, i)
			}
			if !ok {
				f.null(i)
				return
			}
			f.out.Int64[i] = x
		})
	}, nil
}

func bindToLTZ(c *Call, s *Settings) (kernel, error) {
	float := c.Args[0].Type().Kind == row.Double
	if c.Args[0].Type().Kind == row.String {
		zones := zoneCache{}
		return parseTimes(c, timestampType(3), func(x int64, f *frame, i int) (int64, bool) {
			zone := s.Zone
			if len(f.in) > 2 {
				var ok bool
				if zone, ok = zones.find(f, 2, i); !ok {
					return 0, true
				}
			}
			return row.FromLocal(x, 3, zone), true
		})
	}
	return func(f *frame) {
		f.each(func(i int) {
			p := int64(3)
			if len(f.in) > 1 {
				p = f.in[1].Int64[i]
			}
			if p < 0 || p > 9 {
				f.fail(i, errs.EvalArgument, "the precision of TO_TIMESTAMP_LTZ is between 0 (seconds) and 9 (nanoseconds)")
				return
			}
			var d row.Int128
			ok := true
			if float {
				d, ok = row.DecimalFromFloat(f.in[0].Float64[i], 64, row.MaxPrecision, 0)
			} else {
				d = row.Int128From(f.in[0].Int64[i])
			}
			up, fits := d.MulPow10(6)
			q, _ := up.QuoRem(row.Pow10(int(p)))
			x, fits2 := q.Int64()
			f.setInt(i, x-floorMod(x, 1000), ok && fits && fits2)
		})
	}, nil
}

func resolveUnixTimestamp(f *Function, args []Expr) (Expr, error) {
	if len(args) > 0 {
		return Resolve("UNIX_TIMESTAMP OF", args)
	}
	now, err := Resolve("NOW", nil)
	if err != nil {
		return nil, err
	}
	return Resolve("EXTRACT", []Expr{Str("EPOCH"), now})
}

func bindUnixTimestamp(c *Call, s *Settings) (kernel, error) {
	return parseTimes(c, timestampType(0), func(x int64, _ *frame, _ int) (int64, bool) {
		return floorDiv(row.FromLocal(x, 0, s.Zone), row.MicrosPerSecond), true
	})
}

func bindFromUnixTime(c *Call, s *Settings) (kernel, error) {
	po := &patternOf{}
	po.constant, _ = parsePattern("yyyy-MM-dd HH:mm:ss")
	if len(c.Args) > 1 {
		var err error
		if po, err = newPatternOf(c.Args[1]); err != nil {
			return nil, err
		}
	}
	clock := newClockOf(row.Type{Kind: row.TimestampLTZ}, s.Zone)
	return func(f *frame) {
		f.each(func(i int) {
			p, valid := po.of(f, 1, i)
			x, ok := mulInt64(f.in[0].Int64[i], row.MicrosPerSecond)
			if !valid {
				return
			}
			if !ok {
				f.overflow(i)
				return
			}
			off := len(f.heap)
			f.heap = appendMoment(f.heap, p, clock, x)
			f.put(i, off)
		})
	}, nil
}

// appendMoment is for patterns outside of DATE_FORMAT.
func appendMoment(dst []byte, p *pattern, clock *clockOf, x int64) []byte {
	day, nanos := clock.split(x)
	m := moment{day: day, nanos: nanos, zone: "UTC"}
	if clock.zone != nil {
		m.zone = clock.zone.String()
	}
	m.y, m.m, m.d = row.CivilDate(day)
	m.offset = day*86400 + nanos/1e9 - floorDiv(x, row.MicrosPerSecond)
	return p.append(dst, &m)
}

// zoneCache finds time zones by name.
type zoneCache map[string]*time.Location

func (z zoneCache) find(f *frame, arg, i int) (*time.Location, bool) {
	name := f.in[arg].Bytes(i)
	if l, ok := z[string(name)]; ok {
		return l, true
	}
	l, err := ZoneNamed(string(name))
	if err != nil {
		f.fail(i, errs.EvalArgument, err.(*errs.Error).Message)
		return nil, false
	}
	z[string(name)] = l
	return l, true
}

// ZoneNamed is the time zone of a name as Flink takes it: Europe/Berlin, UTC, +02:00, GMT+2.
func ZoneNamed(name string) (*time.Location, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(name, "GMT"), "UTC")
	if rest == "" || name == "Z" {
		return time.UTC, nil
	}
	if rest[0] == '+' || rest[0] == '-' {
		digits := strings.ReplaceAll(rest[1:], ":", "")
		if len(digits) <= 2 {
			digits += "00"
		}
		if len(digits) == 3 {
			digits = "0" + digits
		}
		if x, err := row.ParseInteger(row.Int, []byte(digits)); err == nil && len(digits) == 4 && x/100 <= 18 && x%100 < 60 {
			o := int(x/100*3600 + x%100*60)
			if rest[0] == '-' {
				o = -o
			}
			return time.FixedZone(name, o), nil
		}
	}
	l, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, errs.New(errs.SQLTypeMismatch, "there is no time zone %q", name).WithHint("zones are named like Europe/Berlin, UTC or +02:00")
	}
	return l, nil
}

func bindConvertTZ(_ *Call, _ *Settings) (kernel, error) {
	zones := zoneCache{}
	p, err := parsePattern("yyyy-MM-dd HH:mm:ss")
	if err != nil {
		return nil, err
	}
	clock := newClockOf(timestampType(6), nil)
	return func(f *frame) {
		f.each(func(i int) {
			from, ok1 := zones.find(f, 1, i)
			to, ok2 := zones.find(f, 2, i)
			if !ok1 || !ok2 {
				return
			}
			x, err := row.ParseTimestamp(f.in[0].Bytes(i), 6)
			if err != nil {
				f.null(i)
				return
			}
			off := len(f.heap)
			f.heap = appendMoment(f.heap, p, clock, row.ToLocal(row.FromLocal(x, 6, from), 6, to))
			f.put(i, off)
		})
	}, nil
}

// bindAtTimeZone: an instant becomes what clocks in the zone show, and the other way round.
func bindAtTimeZone(c *Call, _ *Settings) (kernel, error) {
	zones := zoneCache{}
	t := c.Args[0].Type()
	if k, ok := c.Args[1].(*Const); ok && !k.IsNull() {
		if _, err := ZoneNamed(k.Text()); err != nil {
			return nil, err
		}
	}
	return func(f *frame) {
		f.each(func(i int) {
			zone, ok := zones.find(f, 1, i)
			if !ok {
				return
			}
			x := f.in[0].Int64[i]
			switch t.Kind {
			case row.TimestampLTZ:
				x = row.ToLocal(x, t.Precision, zone)
			case row.Date:
				x = row.FromLocal(x*row.MicrosPerDay, 0, zone)
			default:
				x = row.FromLocal(x, t.Precision, zone)
			}
			f.out.Int64[i] = x
		})
	}, nil
}

// resolveOverlaps is (a, b) OVERLAPS (c, d), where b and d are ends or lengths: each begins before the other ends, or both
// begin at once.
func resolveOverlaps(f *Function, args []Expr) (Expr, error) {
	if len(args) != 4 {
		return nil, takes(f, "two pairs of times")
	}
	var begins, ends [2]Expr
	for k := range 2 {
		a, b := args[2*k], args[2*k+1]
		if interval(b.Type()) {
			var err error
			if b, err = Resolve("+", []Expr{a, b}); err != nil {
				return nil, err
			}
		}
		for _, pair := range []struct {
			to   *Expr
			name string
		}{{&begins[k], "LEAST"}, {&ends[k], "GREATEST"}} {
			e, err := Resolve(pair.name, []Expr{a, b})
			if err != nil {
				return nil, err
			}
			*pair.to = e
		}
	}
	var parts [3]Expr
	for k, c := range [][3]any{{"<", begins[0], ends[1]}, {"<", begins[1], ends[0]}, {"=", begins[0], begins[1]}} {
		e, err := Resolve(c[0].(string), []Expr{c[1].(Expr), c[2].(Expr)})
		if err != nil {
			return nil, err
		}
		parts[k] = e
	}
	return &Logic{Or: true, Args: []Expr{&Logic{Args: parts[:2]}, parts[2]}}, nil
}
