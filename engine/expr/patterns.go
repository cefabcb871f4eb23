package expr

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/weirstream/weir/internal/errs"
)

func patternFunctions() []*Function {
	return []*Function{
		{name: "LIKE", hidden: true, sig: "ss?s", result: boolean, bind: bindLike(false), print: printLike, cost: 12},
		{name: "ILIKE", hidden: true, sig: "ss?s", result: boolean, bind: bindLike(true), print: printLike, cost: 30},
		{name: "SIMILAR TO", hidden: true, sig: "ss?s", result: boolean, bind: bindSimilar, print: printLike, cost: 200, faults: true},
		{name: "REGEXP|RLIKE", sig: "ss", result: boolean, bind: bindRegexp, cost: 200, faults: true},
		{name: "REGEXP_EXTRACT", sig: "ss?i", result: text, nullable: true, bind: bindRegexpExtract, cost: 300, faults: true},
		{name: "REGEXP_REPLACE", sig: "sss", result: text, bind: bindRegexpReplace, cost: 400, faults: true},
		{name: "REGEXP_COUNT", sig: "ss", result: integer, bind: bindRegexpCount, cost: 400, faults: true},
	}
}

func printLike(c *Call) string {
	s := "(" + c.Args[0].String() + " " + c.Fn.name + " " + c.Args[1].String()
	if len(c.Args) > 2 {
		s += " ESCAPE " + c.Args[2].String()
	}
	return s + ")"
}

// likePattern is a LIKE pattern taken apart at its %: what stands between matches in order, the first part at the begin,
// the last at the end.
type likePattern struct {
	parts [][]byte
	// any marks, for each part, the bytes that stand for any character; nil if there are none.
	any     [][]bool
	fold    bool
	needles []*needle
}

// parseLike takes a pattern apart. escape is 0 if there is none.
func parseLike(pattern []byte, escape rune, fold bool) (*likePattern, error) {
	p := &likePattern{fold: fold}
	var part []byte
	var marks []bool
	wild := false
	end := func() {
		p.parts = append(p.parts, part)
		if !wild {
			marks = nil
		}
		p.any = append(p.any, marks)
		part, marks, wild = nil, nil, false
	}
	literal := func(r rune) {
		at := len(part)
		part = utf8.AppendRune(part, r)
		for range len(part) - at {
			marks = append(marks, false)
		}
	}
	for i := 0; i < len(pattern); {
		r, size := utf8.DecodeRune(pattern[i:])
		i += size
		switch {
		case escape != 0 && r == escape:
			if i >= len(pattern) {
				return nil, errs.New(errs.EvalArgument, "LIKE pattern '%s' ends with its escape character", pattern)
			}
			next, size := utf8.DecodeRune(pattern[i:])
			if next != '%' && next != '_' && next != escape {
				return nil, errs.New(errs.EvalArgument, "LIKE pattern '%s': behind the escape character stands neither %%, _ nor the character itself", pattern)
			}
			i += size
			literal(next)
		case r == '%':
			end()
		case r == '_':
			part = append(part, '_')
			marks = append(marks, true)
			wild = true
		default:
			literal(r)
		}
	}
	end()
	if fold {
		for k := range p.parts {
			p.parts[k] = appendLower(nil, p.parts[k])
		}
	}
	for k, part := range p.parts {
		if i := slices.Index(p.any[k], true); i >= 0 {
			part = part[:i]
		}
		p.needles = append(p.needles, newNeedle(part))
	}
	return p, nil
}

// matchAt matches part k at the begin of b and says how many bytes it took, -1 if it does not match.
func (p *likePattern) matchAt(k int, b []byte) int {
	part, any := p.parts[k], p.any[k]
	if any == nil {
		if bytes.HasPrefix(b, part) {
			return len(part)
		}
		return -1
	}
	at := 0
	for i := 0; i < len(part); i++ {
		if at >= len(b) {
			return -1
		}
		if any[i] {
			_, size := utf8.DecodeRune(b[at:])
			at += size
			continue
		}
		if b[at] != part[i] {
			return -1
		}
		at++
	}
	return at
}

// find is where part k first matches in b, and how many bytes it takes.
func (p *likePattern) find(k int, b []byte) (at, n int) {
	if p.any[k] == nil {
		return p.needles[k].index(b), len(p.parts[k])
	}
	head := p.needles[k]
	for at := 0; at <= len(b); {
		if len(head.text) > 0 { // what stands before the first _
			next := head.index(b[at:])
			if next < 0 {
				return -1, 0
			}
			at += next
		}
		if n := p.matchAt(k, b[at:]); n >= 0 {
			return at, n
		}
		if at == len(b) {
			break
		}
		_, size := utf8.DecodeRune(b[at:])
		at += size
	}
	return -1, 0
}

func (p *likePattern) match(b []byte) bool {
	n := p.matchAt(0, b)
	last := len(p.parts) - 1
	if n < 0 || last == 0 {
		return n == len(b)
	}
	b = b[n:]
	for k := 1; k < last; k++ {
		at, n := p.find(k, b)
		if at < 0 {
			return false
		}
		b = b[at+n:]
	}
	if p.any[last] == nil {
		return bytes.HasSuffix(b, p.parts[last])
	}
	runes := 0
	for i, part := 0, p.parts[last]; i < len(part); {
		size := 1
		if !p.any[last][i] {
			_, size = utf8.DecodeRune(part[i:])
		}
		i += size
		runes++
	}
	tail := b[runeOffsetBack(b, int64(runes)):]
	return p.matchAt(last, tail) == len(tail)
}

// escapeOf is the escape character of a LIKE whose third argument is e.
func escapeOf(b []byte) (rune, error) {
	r, size := utf8.DecodeRune(b)
	if size == 0 || size != len(b) {
		return 0, errs.New(errs.EvalArgument, "ESCAPE takes one character, not '%s'", b)
	}
	return r, nil
}

func constText(e Expr) ([]byte, bool) {
	c, ok := e.(*Const)
	if !ok || c.IsNull() {
		return nil, false
	}
	return []byte(c.Text()), true
}

func bindLike(fold bool) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		pattern, constant := constText(c.Args[1])
		// Flink's LIKE knows the backslash without an ESCAPE.
		escape := '\\'
		if len(c.Args) > 2 {
			b, ok := constText(c.Args[2])
			if constant = constant && ok; ok {
				var err error
				if escape, err = escapeOf(b); err != nil {
					return nil, err
				}
			}
		}
		if constant {
			p, err := parseLike(pattern, escape, fold)
			if err != nil {
				return nil, err
			}
			return likeKernel(p), nil
		}
		var last []byte
		var p *likePattern
		return func(f *frame) {
			f.each(func(i int) {
				if b := f.in[1].Bytes(i); p == nil || !bytes.Equal(b, last) || len(f.in) > 2 {
					esc := escape
					var err error
					if len(f.in) > 2 {
						esc, err = escapeOf(f.in[2].Bytes(i))
					}
					if err == nil {
						p, err = parseLike(b, esc, fold)
					}
					if err != nil {
						p = nil
						f.fail(i, errs.EvalArgument, err.(*errs.Error).Message)
						return
					}
					last = append(last[:0], b...)
				}
				f.out.Int64[i] = bit(likeFolded(p, f, i))
			})
		}, nil
	}
}

func likeFolded(p *likePattern, f *frame, i int) bool {
	b := f.in[0].Bytes(i)
	if p.fold {
		f.heap = appendLower(f.heap[:0], b)
		b = f.heap
	}
	return p.match(b)
}

// likeKernel has loops for the usual shapes: the whole text, begin%, %end, %part%.
func likeKernel(p *likePattern) kernel {
	plain := !p.fold
	for _, a := range p.any {
		plain = plain && a == nil
	}
	empty := func(k int) bool { return len(p.parts[k]) == 0 }
	var test func(b, part []byte) bool
	var part []byte
	switch n := len(p.parts); {
	case !plain:
	case n == 1:
		test, part = bytes.Equal, p.parts[0]
	case n == 2 && empty(1):
		test, part = bytes.HasPrefix, p.parts[0]
	case n == 2 && empty(0):
		test, part = bytes.HasSuffix, p.parts[1]
	case n == 3 && empty(0) && empty(2):
		part := newNeedle(p.parts[1])
		return func(f *frame) { containsKernel(f, part) }
	}
	if test != nil {
		return func(f *frame) {
			v, out := f.in[0], f.out.Int64
			if f.sel == nil {
				for i := range out {
					out[i] = bit(test(v.Bytes(i), part))
				}
				return
			}
			for _, i := range f.sel {
				out[i] = bit(test(v.Bytes(int(i)), part))
			}
		}
	}
	return func(f *frame) {
		f.each(func(i int) { f.out.Int64[i] = bit(likeFolded(p, f, i)) })
	}
}

func containsKernel(f *frame, part *needle) {
	v, out := f.in[0], f.out.Int64
	if f.sel == nil {
		for i := range out {
			out[i] = bit(part.index(v.Bytes(i)) >= 0)
		}
		return
	}
	for _, i := range f.sel {
		out[i] = bit(part.index(v.Bytes(int(i))) >= 0)
	}
}

// needle is a text to be found in many others. It looks for its rarest byte, for which there is an instruction, and
// compares only there: bytes.Index looks for the first one, which in URLs and words is nearly everywhere.
type needle struct {
	text []byte
	at   int // where in text the byte is that is looked for
}

func newNeedle(text []byte) *needle {
	n := &needle{text: text}
	rank := func(c byte) int {
		switch {
		case c == ' ' || bytes.IndexByte([]byte("etaoinshrdlc"), c) >= 0:
			return 4
		case c >= 'a' && c <= 'z' || bytes.IndexByte([]byte("/.-_:,01"), c) >= 0:
			return 3
		case c >= '2' && c <= '9' || c >= utf8.RuneSelf:
			return 2
		case c >= 'A' && c <= 'Z':
			return 1
		}
		return 0
	}
	for i, c := range text {
		if rank(c) < rank(text[n.at]) {
			n.at = i
		}
	}
	return n
}

// index is bytes.Index.
func (n *needle) index(b []byte) int {
	size := len(n.text)
	if size == 0 {
		return 0
	}
	for from, tries := 0, 0; len(b)-from >= size; tries++ {
		if tries == 8 { // the byte is not rare here
			if k := bytes.Index(b[from:], n.text); k >= 0 {
				return from + k
			}
			return -1
		}
		k := bytes.IndexByte(b[from+n.at:len(b)-size+n.at+1], n.text[n.at])
		if k < 0 {
			return -1
		}
		from += k
		if string(b[from:from+size]) == string(n.text) {
			return from
		}
		from++
	}
	return -1
}
