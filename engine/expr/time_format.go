package expr

import (
	"bytes"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// pattern is a date pattern of Java's letters, taken apart.
type pattern struct {
	parts []patternPart
	// dayOnly: no part looks at the time of day, so rows of one day have one text.
	dayOnly bool
}

type patternPart struct {
	letter byte // 0: text
	width  int
	text   string
}

const patternLetters = "yuMLdDEaHhkKmsSnXxZzV"

// parsePattern takes a pattern apart.
func parsePattern(s string) (*pattern, error) {
	p := &pattern{dayOnly: true}
	literal := func(t string) {
		if n := len(p.parts); n > 0 && p.parts[n-1].letter == 0 {
			p.parts[n-1].text += t
			return
		}
		p.parts = append(p.parts, patternPart{text: t})
	}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			switch {
			case end < 0:
				return nil, errs.New(errs.SQLTypeMismatch, "date pattern %q: a quote is not closed", s)
			case end == 0:
				literal("'")
			default:
				literal(s[i+1 : i+1+end])
			}
			i += end + 2
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			n := 1
			for i+n < len(s) && s[i+n] == c {
				n++
			}
			if n > 18 {
				return nil, errs.New(errs.SQLTypeMismatch, "date pattern %q: the letter %c stands more than 18 times in a row", s, c)
			}
			if strings.IndexByte(patternLetters, c) < 0 {
				return nil, errs.New(errs.SQLTypeMismatch, "date pattern %q: the letter %c is not supported", s, c).
					WithHint("letters are those of Java's DateTimeFormatter: y M d E a H h k K m s S; other text stands between single quotes")
			}
			if strings.IndexByte("yuMLdDE", c) < 0 {
				p.dayOnly = false
			}
			p.parts = append(p.parts, patternPart{letter: c, width: n})
			i += n
		default:
			literal(s[i : i+1])
			i++
		}
	}
	return p, nil
}

func appendInt(dst []byte, x int64, width int) []byte {
	if width == 2 && x >= 0 && x < 100 {
		return append(dst, byte('0'+x/10), byte('0'+x%10))
	}
	var buf [20]byte
	at := len(buf)
	negative := x < 0
	if negative {
		x = -x
	}
	for x > 0 || len(buf)-at < max(width, 1) {
		at--
		buf[at] = byte('0' + x%10)
		x /= 10
	}
	if negative {
		dst = append(dst, '-')
	}
	return append(dst, buf[at:]...)
}

// moment is what a pattern is filled with.
type moment struct {
	y, m, d, day int64
	nanos        int64
	offset       int64 // seconds east of UTC
	zone         string
}

func (p *pattern) append(dst []byte, t *moment) []byte {
	for k := range p.parts {
		part := &p.parts[k]
		switch part.letter {
		case 0:
			dst = append(dst, part.text...)
		case 'y', 'u':
			if part.width == 2 {
				dst = appendInt(dst, floorMod(t.y, 100), 2)
			} else {
				dst = appendInt(dst, t.y, part.width)
			}
		case 'M', 'L':
			switch {
			case part.width == 3:
				dst = append(dst, time.Month(t.m).String()[:3]...)
			case part.width >= 4:
				dst = append(dst, time.Month(t.m).String()...)
			default:
				dst = appendInt(dst, t.m, part.width)
			}
		case 'd':
			dst = appendInt(dst, t.d, part.width)
		case 'D':
			dst = appendInt(dst, t.day-row.DaysFromCivil(t.y, 1, 1)+1, part.width)
		case 'E':
			name := time.Weekday(floorMod(t.day+4, 7)).String()
			if part.width < 4 {
				name = name[:3]
			}
			dst = append(dst, name...)
		case 'a':
			if t.nanos < row.NanosPerDay/2 {
				dst = append(dst, "AM"...)
			} else {
				dst = append(dst, "PM"...)
			}
		case 'H':
			dst = appendInt(dst, t.nanos/3600e9, part.width)
		case 'k':
			dst = appendInt(dst, (t.nanos/3600e9+23)%24+1, part.width)
		case 'h':
			dst = appendInt(dst, (t.nanos/3600e9+11)%12+1, part.width)
		case 'K':
			dst = appendInt(dst, t.nanos/3600e9%12, part.width)
		case 'm':
			dst = appendInt(dst, t.nanos/60e9%60, part.width)
		case 's':
			dst = appendInt(dst, t.nanos/1e9%60, part.width)
		case 'n':
			dst = appendInt(dst, t.nanos%1e9, part.width)
		case 'S':
			f, div := t.nanos%1e9, int64(1e8)
			for range part.width {
				if div == 0 {
					dst = append(dst, '0')
					continue
				}
				dst = append(dst, byte('0'+f/div))
				f, div = f%div, div/10
			}
		case 'X', 'x', 'Z':
			dst = appendOffset(dst, part, t.offset)
		case 'z', 'V':
			dst = append(dst, t.zone...)
		}
	}
	return dst
}

func appendOffset(dst []byte, part *patternPart, offset int64) []byte {
	if offset == 0 && part.letter == 'X' {
		return append(dst, 'Z')
	}
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	dst = appendInt(append(dst, sign), offset/3600, 2)
	if part.letter != 'Z' && part.width == 1 && offset%3600 == 0 {
		return dst
	}
	if part.letter != 'Z' && part.width == 3 {
		dst = append(dst, ':')
	}
	return appendInt(dst, offset/60%60, 2)
}

// patternOf gives the pattern of a call's argument: compiled once if it is constant, else when it changes.
type patternOf struct {
	constant *pattern
	last     []byte
	compiled *pattern
}

func newPatternOf(e Expr) (*patternOf, error) {
	c, ok := e.(*Const)
	if !ok || c.IsNull() {
		return &patternOf{}, nil
	}
	p, err := parsePattern(c.Text())
	return &patternOf{constant: p}, err
}

func (p *patternOf) of(f *frame, arg, i int) (*pattern, bool) {
	if p.constant != nil {
		return p.constant, true
	}
	b := f.in[arg].Bytes(i)
	if p.compiled == nil || !bytes.Equal(b, p.last) {
		c, err := parsePattern(string(b))
		if err != nil {
			f.fail(i, errs.EvalArgument, err.(*errs.Error).Message)
			return nil, false
		}
		p.last, p.compiled = append(p.last[:0], b...), c
	}
	return p.compiled, true
}

// bindDateFormat is DATE_FORMAT(t, pattern). Rows of one day after each other share their text if the pattern shows the
// day alone.
func bindDateFormat(c *Call, s *Settings) (kernel, error) {
	po, err := newPatternOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	t := c.Args[0].Type()
	clock := newClockOf(t, s.Zone)
	return func(f *frame) {
		x, out := f.in[0].Int64, f.out.Spans
		var mo moment
		fresh := true
		var last *pattern
		var span row.Span
		f.each(func(i int) {
			p, ok := po.of(f, 1, i)
			if !ok {
				return
			}
			before := clock.day
			day, nanos := clock.split(x[i])
			if !fresh && day == before && p == last && p.dayOnly {
				out[i] = span
				return
			}
			if fresh || day != mo.day {
				mo.day = day
				mo.y, mo.m, mo.d = row.CivilDate(day)
			}
			fresh, last, mo.nanos = false, p, nanos
			mo.offset, mo.zone = 0, "UTC"
			if t.Kind == row.TimestampLTZ && !p.dayOnly && s.Zone != nil {
				mo.zone = s.Zone.String()
				mo.offset = (row.ToLocal(x[i], t.Precision, s.Zone) - x[i]) / row.UnitsPerSecond(t.Precision)
			}
			off := len(f.heap)
			f.heap = p.append(f.heap, &mo)
			f.put(i, off)
			span = out[i]
		})
	}, nil
}

// parse reads a text by the pattern; what the pattern leaves out is as in 1970-01-01 00:00.
func (p *pattern) parse(b []byte) (day, nanos int64, ok bool) {
	y, m, d := int64(1970), int64(1), int64(1)
	doy := int64(0)
	var h, mi, sec, frac int64
	pm, half := false, false
	number := func(width int, exact bool) (int64, bool) {
		limit := width
		if !exact {
			limit = 9
		}
		n, x := 0, int64(0)
		for n < len(b) && n < limit && b[n] >= '0' && b[n] <= '9' {
			x = x*10 + int64(b[n]-'0')
			n++
		}
		if n == 0 || exact && n < width {
			return 0, false
		}
		b = b[n:]
		return x, true
	}
	var x int64
	for k := range p.parts {
		part := &p.parts[k]
		// A part right before another number takes its own width only.
		exact := part.width > 1 || k+1 < len(p.parts) && p.parts[k+1].letter != 0
		ok = true
		switch part.letter {
		case 0:
			if !bytes.HasPrefix(b, []byte(part.text)) {
				return 0, 0, false
			}
			b = b[len(part.text):]
		case 'y', 'u':
			x, ok = number(part.width, exact)
			if y = x; part.width == 2 {
				y += 2000
			}
		case 'M', 'L':
			if part.width >= 3 {
				m, b, ok = monthNamed(b, part.width)
			} else {
				m, ok = number(part.width, exact)
			}
		case 'd':
			d, ok = number(part.width, exact)
		case 'D':
			doy, ok = number(part.width, exact)
		case 'E':
			n := 0
			for n < len(b) && (b[n]|0x20) >= 'a' && (b[n]|0x20) <= 'z' {
				n++
			}
			b, ok = b[n:], n > 0
		case 'a':
			half = true
			ok = len(b) >= 2 && (b[0]|0x20 == 'a' || b[0]|0x20 == 'p') && b[1]|0x20 == 'm'
			if ok {
				pm, b = b[0]|0x20 == 'p', b[2:]
			}
		case 'H':
			h, ok = number(part.width, exact)
		case 'k':
			h, ok = number(part.width, exact)
			h %= 24
		case 'h', 'K':
			h, ok = number(part.width, exact)
			h %= 12
		case 'm':
			mi, ok = number(part.width, exact)
		case 's':
			sec, ok = number(part.width, exact)
		case 'S':
			x, ok = number(part.width, true)
			for n := part.width; n < 9; n++ {
				x *= 10
			}
			frac = x
		case 'n':
			frac, ok = number(part.width, exact)
		default:
			return 0, 0, false
		}
		if !ok {
			return 0, 0, false
		}
	}
	if half && pm {
		h += 12
	}
	if len(b) != 0 || m < 1 || m > 12 || d < 1 || d > row.DaysInMonth(y, m) || h > 23 || mi > 59 || sec > 59 || frac >= 1e9 {
		return 0, 0, false
	}
	day = row.DaysFromCivil(y, m, d)
	if doy > 0 {
		day = row.DaysFromCivil(y, 1, 1) + doy - 1
	}
	return day, ((h*60+mi)*60+sec)*1e9 + frac, true
}

func monthNamed(b []byte, width int) (int64, []byte, bool) {
	for m := time.January; m <= time.December; m++ {
		name := m.String()
		if width == 3 {
			name = name[:3]
		}
		if len(b) >= len(name) && strings.EqualFold(string(b[:len(name)]), name) {
			return int64(m), b[len(name):], true
		}
	}
	return 0, b, false
}
