package expr

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weirstream/weir/internal/errs"
)

// compileRegexp takes Java's syntax as far as Go's is the same, and says where it is not.
func compileRegexp(s string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(s)
	if err == nil {
		return re, nil
	}
	e := errs.New(errs.EvalArgument, "regular expression '%s': %v", s, err)
	for _, c := range []struct{ part, hint string }{
		{"(?=", "weir's regular expressions never look ahead or behind, so that each takes time linear in the text"},
		{"(?!", "weir's regular expressions never look ahead or behind, so that each takes time linear in the text"},
		{"(?<=", "weir's regular expressions never look ahead or behind, so that each takes time linear in the text"},
		{"(?<!", "weir's regular expressions never look ahead or behind, so that each takes time linear in the text"},
		{"(?>", "atomic groups are Java's; here matching never goes back, so a plain group does"},
		{"++", "possessive quantifiers are Java's; here matching never goes back, so the plain one does"},
		{"*+", "possessive quantifiers are Java's; here matching never goes back, so the plain one does"},
		{`\1`, "references to groups inside a pattern are Java's; weir's regular expressions take time linear in the text and have none"},
	} {
		if strings.Contains(s, c.part) {
			return nil, e.WithHint("%s", c.hint)
		}
	}
	return nil, e
}

// regexpOf gives the compiled pattern of an argument.
type regexpOf struct {
	constant *regexp.Regexp
	last     []byte
	compiled *regexp.Regexp
}

func newRegexpOf(e Expr) (*regexpOf, error) {
	r := &regexpOf{}
	if b, ok := constText(e); ok {
		var err error
		if r.constant, err = compileRegexp(string(b)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *regexpOf) of(f *frame, arg, i int) *regexp.Regexp {
	if r.constant != nil {
		return r.constant
	}
	b := f.in[arg].Bytes(i)
	if r.compiled == nil || !bytes.Equal(b, r.last) {
		re, err := compileRegexp(string(b))
		if err != nil {
			f.fail(i, errs.EvalArgument, err.(*errs.Error).Message)
			return nil
		}
		r.last, r.compiled = append(r.last[:0], b...), re
	}
	return r.compiled
}

func bindRegexp(c *Call, _ *Settings) (kernel, error) {
	r, err := newRegexpOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	return func(f *frame) {
		f.each(func(i int) {
			if re := r.of(f, 1, i); re != nil {
				f.out.Int64[i] = bit(re.Match(f.in[0].Bytes(i)))
			}
		})
	}, nil
}

// bindSimilar turns SQL's regular expressions into ours.
func bindSimilar(c *Call, _ *Settings) (kernel, error) {
	var last []byte
	var re *regexp.Regexp
	compile := func(pattern, escape []byte) (*regexp.Regexp, error) {
		s, err := similarPattern(string(pattern), string(escape))
		if err != nil {
			return nil, err
		}
		return compileRegexp(s)
	}
	pattern, constant := constText(c.Args[1])
	var escape []byte
	if len(c.Args) > 2 {
		var ok bool
		escape, ok = constText(c.Args[2])
		constant = constant && ok
	}
	if constant {
		var err error
		if re, err = compile(pattern, escape); err != nil {
			return nil, err
		}
		return func(f *frame) {
			f.each(func(i int) { f.out.Int64[i] = bit(re.Match(f.in[0].Bytes(i))) })
		}, nil
	}
	return func(f *frame) {
		f.each(func(i int) {
			b := f.in[1].Bytes(i)
			if re == nil || !bytes.Equal(b, last) || len(f.in) > 2 {
				var esc []byte
				if len(f.in) > 2 {
					esc = f.in[2].Bytes(i)
				}
				var err error
				if re, err = compile(b, esc); err != nil {
					f.fail(i, errs.EvalArgument, err.(*errs.Error).Message)
					return
				}
				last = append(last[:0], b...)
			}
			f.out.Int64[i] = bit(re.Match(f.in[0].Bytes(i)))
		})
	}, nil
}

func similarPattern(s, escape string) (string, error) {
	var b strings.Builder
	b.WriteString("(?s)^(?:")
	esc := rune(-1)
	if escape != "" {
		var err error
		if esc, err = escapeOf([]byte(escape)); err != nil {
			return "", err
		}
	}
	inClass, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			b.WriteString(regexp.QuoteMeta(string(r)))
			escaped = false
		case r == esc:
			escaped = true
		case inClass:
			inClass = r != ']'
			b.WriteRune(r)
		case r == '%':
			b.WriteString(".*")
		case r == '_':
			b.WriteByte('.')
		case r == '[':
			inClass = true
			b.WriteRune(r)
		case strings.ContainsRune("|*+?{}()", r):
			b.WriteRune(r)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	if escaped {
		return "", errs.New(errs.EvalArgument, "SIMILAR TO pattern '%s' ends with its escape character", s)
	}
	return b.String() + ")$", nil
}

// bindRegexpExtract is the text of a group, 0 the whole match; NULL if there is no match or the group took no part.
func bindRegexpExtract(c *Call, _ *Settings) (kernel, error) {
	if k := fastExtract(c); k != nil {
		return k, nil
	}
	r, err := newRegexpOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	return func(f *frame) {
		f.share(0)
		f.each(func(i int) {
			re := r.of(f, 1, i)
			if re == nil {
				return
			}
			group := int64(0)
			if len(f.in) > 2 {
				group = f.in[2].Int64[i]
			}
			if group < 0 || group > int64(re.NumSubexp()) {
				f.null(i)
				return
			}
			at := re.FindSubmatchIndex(f.in[0].Bytes(i))
			if at == nil || at[2*group] < 0 {
				f.null(i)
				return
			}
			f.part(i, at[2*group], at[2*group+1])
		})
	}, nil
}

// runUntil is a pattern of one frequent shape: one of some fixed texts, or the begin, then as many characters as there are
// of all but some: (&|^)channel_id=([^&]*). Its match is found without a machine of states.
type runUntil struct {
	// heads are the fixed texts; atBegin tells that there the text has to begin, with nothing before.
	heads   [][]byte
	needles []*needle
	atBegin []bool
	stop    [256]bool
	group   int // the group that is asked for
}

// fastExtract is a kernel for patterns of the shape of runUntil, or nil.
func fastExtract(c *Call) kernel {
	pattern, ok := constText(c.Args[1])
	if !ok {
		return nil
	}
	group := int64(0)
	if len(c.Args) > 2 {
		g, ok := c.Args[2].(*Const)
		if !ok || g.IsNull() {
			return nil
		}
		group = g.Int64()
	}
	p := parseRunUntil(string(pattern), int(group))
	if p == nil {
		return nil
	}
	return func(f *frame) {
		f.share(0)
		v := f.in[0]
		f.each(func(i int) {
			b := v.Bytes(i)
			begin, end := p.find(b)
			if begin < 0 {
				f.null(i)
				return
			}
			f.part(i, begin, end)
		})
	}
}

// parseRunUntil takes (a|^)literal([^set]*) and literal([^set]*), where a is a literal and the last group is asked for.
func parseRunUntil(pattern string, group int) *runUntil {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || group == 0 || group != re.MaxCap() {
		return nil
	}
	subs := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		subs = re.Sub
	}
	last := subs[len(subs)-1]
	if last.Op != syntax.OpCapture || last.Cap != group || last.Sub[0].Op != syntax.OpStar || last.Sub[0].Flags&syntax.NonGreedy != 0 ||
		last.Sub[0].Sub[0].Op != syntax.OpCharClass {
		return nil
	}
	p := &runUntil{group: group}
	class := last.Sub[0].Sub[0].Rune
	in := func(r rune) bool {
		for i := 0; i < len(class); i += 2 {
			if r >= class[i] && r <= class[i+1] {
				return true
			}
		}
		return false
	}
	for c := range utf8.RuneSelf {
		p.stop[c] = !in(rune(c))
	}
	if !in(utf8.RuneSelf) || class[len(class)-1] != utf8.MaxRune { // all beyond ASCII, or it is not this shape
		return nil
	}
	for i := 0; i < len(class); i += 2 {
		if class[i] > utf8.RuneSelf {
			return nil
		}
	}
	heads, begins := [][]byte{nil}, []bool{false}
	for k, s := range subs[:len(subs)-1] {
		if s.Op == syntax.OpCapture {
			s = s.Sub[0]
		}
		alternatives := []*syntax.Regexp{s}
		if s.Op == syntax.OpAlternate {
			alternatives = s.Sub
		}
		if len(alternatives) > 1 && k > 0 {
			return nil
		}
		var grown [][]byte
		var at []bool
		for _, a := range alternatives {
			switch {
			case a.Op == syntax.OpLiteral && a.Flags&syntax.FoldCase == 0:
				for h := range heads {
					grown = append(grown, append(bytes.Clone(heads[h]), string(a.Rune)...))
					at = append(at, begins[h])
				}
			case a.Op == syntax.OpBeginText && k == 0:
				grown, at = append(grown, nil), append(at, true)
			default:
				return nil
			}
		}
		heads, begins = grown, at
	}
	for _, h := range heads {
		if len(h) == 0 {
			return nil
		}
		p.needles = append(p.needles, newNeedle(h))
	}
	p.heads, p.atBegin = heads, begins
	return p
}

func (p *runUntil) find(b []byte) (begin, end int) {
	best, length := -1, 0
	for k, head := range p.heads {
		at := -1
		if p.atBegin[k] {
			if bytes.HasPrefix(b, head) {
				at = 0
			}
		} else {
			at = p.needles[k].index(b)
		}
		if at >= 0 && (best < 0 || at < best) { // of matches at one place the earlier alternative counts
			best, length = at, len(head)
		}
	}
	if best < 0 {
		return -1, -1
	}
	begin = best + length
	for end = begin; end < len(b) && !p.stop[b[end]]; end++ {
	}
	return begin, end
}

func bindRegexpCount(c *Call, _ *Settings) (kernel, error) {
	r, err := newRegexpOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	return func(f *frame) {
		f.each(func(i int) {
			if re := r.of(f, 1, i); re != nil {
				f.out.Int64[i] = int64(len(re.FindAllIndex(f.in[0].Bytes(i), -1)))
			}
		})
	}, nil
}

// bindRegexpReplace replaces every match; $1 or ${name} in the replacement is a group, as in Java.
func bindRegexpReplace(c *Call, _ *Settings) (kernel, error) {
	r, err := newRegexpOf(c.Args[1])
	if err != nil {
		return nil, err
	}
	return func(f *frame) {
		f.each(func(i int) {
			re := r.of(f, 1, i)
			if re == nil {
				return
			}
			b, off := f.in[0].Bytes(i), len(f.heap)
			template, why := replacement(f.in[2].Bytes(i), re)
			if why != "" {
				f.fail(i, errs.EvalArgument, why)
				return
			}
			f.heap = append(f.heap, re.ReplaceAll(b, template)...)
			f.put(i, off)
		})
	}, nil
}

// replacement turns Java's template into Go's: a group is as many digits as make a group that there is, and a backslash
// takes the next character as it is.
func replacement(t []byte, re *regexp.Regexp) (out []byte, why string) {
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case c == '\\' && i+1 < len(t):
			i++
			if t[i] == '$' {
				out = append(out, '$')
			}
			out = append(out, t[i])
		case c == '$' && i+1 < len(t) && t[i+1] >= '0' && t[i+1] <= '9':
			n, k := int(t[i+1]-'0'), i+2
			for k < len(t) && t[k] >= '0' && t[k] <= '9' && n*10+int(t[k]-'0') <= re.NumSubexp() {
				n = n*10 + int(t[k]-'0')
				k++
			}
			if n > re.NumSubexp() {
				return nil, "the replacement names group " + strconv.Itoa(n) + ", which the pattern does not have"
			}
			out = append(append(out, "${"...), strconv.Itoa(n)...)
			out = append(out, '}')
			i = k - 1
		case c == '$' && i+1 < len(t) && t[i+1] == '{':
			out = append(out, c)
		case c == '$':
			return nil, "a $ in the replacement names no group; write \\$ for the character"
		default:
			out = append(out, c)
		}
	}
	return out, ""
}
