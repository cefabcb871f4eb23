package json

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
)

// Decoder reads lines. It may be used for one file after the other, or for single records.
type Decoder struct {
	opts Options
	top  object

	data    []byte // the line at hand
	pos     int
	scratch []byte // a string without its escapes
	column  string // where the first failure was, with dots between nested fields
}

// object is what a JSON object is read into: the columns of the table or the fields of a ROW.
type object struct {
	nodes []node
	place map[string]int
	// order remembers which key stood where in the object before: the next one is most likely made the same way.
	order []remembered
	cols  []*row.Vector
	count int // objects read so far; a node is seen in this one if its number is the same
}

type remembered struct {
	key    []byte
	target int // -1 for keys that nobody asked for
}

// node is a place for values: a column, a field, or the elements of an array.
type node struct {
	name   string
	t      row.Type
	layout row.Layout
	seen   int
	// Of nested types: the parts, and the vectors in which they wait.
	fields *object
	own    []row.Vector
	codec  *row.Codec
	key    *node
	elem   *node
}

var _ format.Decoder = (*Decoder)(nil)

// NewDecoder returns a decoder of the columns asked for.
func (f *Format) NewDecoder() *Decoder {
	var fields []row.Field
	for _, c := range f.columns {
		fields = append(fields, f.schema[c])
	}
	return &Decoder{opts: f.opts, top: newObject(fields)}
}

func newObject(fields []row.Field) object {
	o := object{place: map[string]int{}}
	for i, f := range fields {
		o.place[f.Name] = i
		o.nodes = append(o.nodes, newNode(f.Name, f.Type))
	}
	o.cols = make([]*row.Vector, len(fields))
	return o
}

func newNode(name string, t row.Type) node {
	n := node{name: name, t: t, layout: t.Layout()}
	switch t.Kind {
	case row.Struct:
		o := newObject(t.Fields)
		n.fields, n.own, n.codec = &o, make([]row.Vector, len(t.Fields)), row.NewCodec(row.Schema(t.Fields).Types())
		for i := range n.own {
			o.cols[i] = &n.own[i]
		}
	case row.Array:
		e := newNode(name, *t.Elem)
		n.elem, n.own = &e, make([]row.Vector, 1)
	case row.Map, row.Multiset:
		key, value := row.MapTypes(t)
		k, e := newNode(name, key), newNode(name, value)
		n.key, n.elem, n.own = &k, &e, make([]row.Vector, 2)
	}
	return n
}

// HasHeader is false: names are in every line.
func (d *Decoder) HasHeader() bool { return false }

// Header has nothing to read.
func (d *Decoder) Header([]byte, bool) (int, error) { return 0, nil }

// Decode is that of format.Decoder.
func (d *Decoder) Decode(b *row.Builder, data []byte, last bool, limit int) (used int, lines int64, err error) {
	end := b.Len + limit
	for b.Len < end && used < len(data) {
		line, next := data[used:], len(data)
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line, next = line[:n], used+n+1
		} else if !last {
			return used, lines, nil
		}
		if bad := d.Record(b, line); bad != nil && !d.opts.IgnoreParseErrors {
			bad.Line, bad.Offset = lines+1, int64(used)
			return used, lines, bad
		}
		used, lines = next, lines+1
	}
	return used, lines, nil
}

// Record appends the row of one object, or nothing if text is blank. On an error it appends nothing.
func (d *Decoder) Record(b *row.Builder, text []byte) *format.BadRecord {
	d.data, d.pos, d.column = text, 0, ""
	if d.space(); d.pos == len(text) {
		return nil
	}
	copy(d.top.cols, b.Cols)
	err := d.object(&d.top, b.Len)
	if err == nil {
		if d.space(); d.pos != len(text) {
			err = d.syntax("nothing more was expected")
		}
	}
	if err != nil {
		for i := range d.top.nodes {
			format.Cut(b.Cols[i], d.top.nodes[i].layout, b.Len)
		}
		return &format.BadRecord{Column: d.column, Err: err}
	}
	b.EndRow(1)
	return nil
}

// A syntaxError leaves nothing to go on with in its line; other errors are of one value, which has been passed.
type syntaxError struct {
	at   int
	want string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("not JSON at byte %d: %s", e.at, e.want) }

func (d *Decoder) syntax(want string) error { return &syntaxError{d.pos + 1, want} }

// valueError says that a value does not fit its column.
type valueError struct{ err error }

func (e *valueError) Error() string { return e.err.Error() }
func (e *valueError) Unwrap() error { return e.err }

var (
	errNull    = &valueError{errors.New("NULL in a column that is NOT NULL")}
	errMissing = &valueError{errors.New("the field is missing")}
)

func (d *Decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return
		}
	}
}

// object reads an object into o's vectors, each of which gets exactly one value behind the have that it holds.
func (d *Decoder) object(o *object, have int) error {
	if d.pos == len(d.data) || d.data[d.pos] != '{' {
		if err := d.skip(0); err != nil {
			return err
		}
		return &valueError{errors.New("an object was expected")}
	}
	d.pos++
	o.count++
	ordinal := 0
	var bad error
	for {
		d.space()
		if d.pos < len(d.data) && d.data[d.pos] == '}' && ordinal == 0 {
			d.pos++
			break
		}
		if d.pos == len(d.data) || d.data[d.pos] != '"' {
			return d.syntax("a field's name in quotes was expected")
		}
		target, err := d.name(o, ordinal)
		if err != nil {
			return err
		}
		if d.space(); d.pos == len(d.data) || d.data[d.pos] != ':' {
			return d.syntax("a colon was expected")
		}
		d.pos++
		d.space()
		if target < 0 {
			if err := d.skip(0); err != nil {
				return err
			}
		} else if err := d.field(o, target, have); err != nil {
			if _, value := errors.AsType[*valueError](err); !value {
				return err
			}
			if bad == nil {
				bad = err
			}
		}
		ordinal++
		d.space()
		if d.pos < len(d.data) && d.data[d.pos] == ',' {
			d.pos++
			continue
		}
		if d.pos < len(d.data) && d.data[d.pos] == '}' {
			d.pos++
			break
		}
		return d.syntax("a comma or a closing brace was expected")
	}
	if bad != nil {
		return bad
	}
	for i := range o.nodes {
		if n := &o.nodes[i]; n.seen != o.count {
			if d.opts.FailOnMissingField {
				d.column = n.name
				return errMissing
			}
			if err := d.null(n, o.cols[i]); err != nil {
				d.column = n.name
				return err
			}
		}
	}
	return nil
}

// name reads a field's name and finds where its value goes.
func (d *Decoder) name(o *object, ordinal int) (int, error) {
	if ordinal < len(o.order) {
		m := &o.order[ordinal]
		if end := d.pos + 1 + len(m.key); end < len(d.data) && d.data[end] == '"' && string(d.data[d.pos+1:end]) == string(m.key) {
			d.pos = end + 1
			return m.target, nil
		}
	}
	key, err := d.text()
	if err != nil {
		return 0, err
	}
	target, ok := o.place[string(key)]
	if !ok {
		target = -1
	}
	// Only names that are written as they are: what stands between the quotes is compared.
	if format.Plain(key) == len(key) {
		const most = 1000
		if ordinal == len(o.order) && ordinal < most {
			o.order = append(o.order, remembered{})
		}
		if ordinal < len(o.order) {
			m := &o.order[ordinal]
			m.key, m.target = append(m.key[:0], key...), target
		}
	}
	return target, nil
}

// field reads a value into one of o's vectors.
func (d *Decoder) field(o *object, target, have int) error {
	n, v := &o.nodes[target], o.cols[target]
	if n.seen == o.count { // written twice: the last one counts
		format.Cut(v, n.layout, have)
	}
	n.seen = o.count
	before := d.column
	err := d.value(n, v)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*valueError](err); ok && d.opts.IgnoreParseErrors && !n.t.NotNull {
		format.Cut(v, n.layout, have)
		v.AppendNull(n.layout)
		d.column = before
		return nil
	}
	switch {
	case before != "": // an earlier failure of the same object is the one that is told
	case d.column == "":
		d.column = n.name
	default:
		d.column = n.name + "." + d.column
	}
	return err
}

func (d *Decoder) null(n *node, v *row.Vector) error {
	if n.t.NotNull {
		return errNull
	}
	v.AppendNull(n.layout)
	return nil
}

// text reads a string. It is valid until the next one, and as long as the line is.
func (d *Decoder) text() ([]byte, error) {
	d.pos++
	start := d.pos
	d.pos += format.Plain(d.data[d.pos:])
	if d.pos < len(d.data) && d.data[d.pos] == '"' {
		d.pos++
		return d.data[start : d.pos-1], nil
	}
	d.scratch = append(d.scratch[:0], d.data[start:d.pos]...)
	for d.pos < len(d.data) {
		switch c := d.data[d.pos]; {
		case c == '"':
			d.pos++
			return d.scratch, nil
		case c == '\\':
			if err := d.escape(); err != nil {
				return nil, err
			}
		case c < 0x20:
			return nil, d.syntax("a control character in a string must be escaped")
		case c < utf8.RuneSelf:
			n := max(format.Plain(d.data[d.pos:]), 1)
			d.scratch = append(d.scratch, d.data[d.pos:d.pos+n]...)
			d.pos += n
		default:
			r, size := utf8.DecodeRune(d.data[d.pos:])
			if r == utf8.RuneError && size == 1 {
				return nil, d.syntax("the text is not UTF-8")
			}
			d.scratch = append(d.scratch, d.data[d.pos:d.pos+size]...)
			d.pos += size
		}
	}
	return nil, d.syntax("the string does not end")
}

// escape reads an escape sequence into the scratch.
func (d *Decoder) escape() error {
	if d.pos+1 >= len(d.data) {
		return d.syntax("the string does not end")
	}
	c := d.data[d.pos+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		r, ok := d.hex4(d.pos + 2)
		if !ok {
			return d.syntax("four hexadecimal digits were expected")
		}
		d.pos += 6
		if r >= 0xD800 && r < 0xDC00 && d.pos+1 < len(d.data) && d.data[d.pos] == '\\' && d.data[d.pos+1] == 'u' {
			if low, ok := d.hex4(d.pos + 2); ok && low >= 0xDC00 && low < 0xE000 {
				r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
				d.pos += 6
			}
		}
		d.scratch = utf8.AppendRune(d.scratch, r) // half a surrogate becomes U+FFFD
		return nil
	default:
		return d.syntax("no such escape sequence")
	}
	d.scratch = append(d.scratch, c)
	d.pos += 2
	return nil
}

func (d *Decoder) hex4(at int) (r rune, ok bool) {
	if at+4 > len(d.data) {
		return 0, false
	}
	for _, c := range d.data[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// number passes over a number and returns it.
func (d *Decoder) number() ([]byte, error) {
	start := d.pos
	digits := func() bool {
		from := d.pos
		for d.pos < len(d.data) && d.data[d.pos]-'0' <= 9 {
			d.pos++
		}
		return d.pos > from
	}
	if d.data[d.pos] == '-' {
		d.pos++
	}
	zero := d.pos < len(d.data) && d.data[d.pos] == '0'
	first := d.pos
	if !digits() || zero && d.pos > first+1 {
		return nil, d.syntax("a value was expected")
	}
	if d.pos < len(d.data) && d.data[d.pos] == '.' {
		d.pos++
		if !digits() {
			return nil, d.syntax("a digit was expected")
		}
	}
	if d.pos < len(d.data) && d.data[d.pos]|0x20 == 'e' {
		d.pos++
		if d.pos < len(d.data) && (d.data[d.pos] == '+' || d.data[d.pos] == '-') {
			d.pos++
		}
		if !digits() {
			return nil, d.syntax("a digit was expected")
		}
	}
	return d.data[start:d.pos], nil
}

func (d *Decoder) literal(word string) error {
	if end := d.pos + len(word); end <= len(d.data) && string(d.data[d.pos:end]) == word {
		d.pos = end
		return nil
	}
	return d.syntax("a value was expected")
}

// deepest is how far values may be nested: enough for people, and little enough for the stack.
const deepest = 200

// skip passes over a value and checks it.
func (d *Decoder) skip(depth int) error {
	if depth == deepest {
		return d.syntax("the value is nested too deeply")
	}
	if d.pos == len(d.data) {
		return d.syntax("a value was expected")
	}
	switch c := d.data[d.pos]; c {
	case '"':
		_, err := d.text()
		return err
	case 't':
		return d.literal("true")
	case 'f':
		return d.literal("false")
	case 'n':
		return d.literal("null")
	case '{', '[':
		d.pos++
		closing := c + 2
		for first := true; ; first = false {
			if d.space(); d.pos == len(d.data) {
				return d.syntax("the value does not end")
			}
			if d.data[d.pos] == closing {
				d.pos++
				return nil
			}
			if !first {
				if d.data[d.pos] != ',' {
					return d.syntax("a comma was expected")
				}
				d.pos++
				d.space()
			}
			if c == '{' {
				if d.pos == len(d.data) || d.data[d.pos] != '"' {
					return d.syntax("a field's name in quotes was expected")
				}
				if _, err := d.text(); err != nil {
					return err
				}
				if d.space(); d.pos == len(d.data) || d.data[d.pos] != ':' {
					return d.syntax("a colon was expected")
				}
				d.pos++
				d.space()
			}
			if err := d.skip(depth + 1); err != nil {
				return err
			}
		}
	}
	_, err := d.number()
	return err
}
