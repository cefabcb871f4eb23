package json

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/format"
)

// value reads a value of the node's type and appends it to v. After a valueError the value has been passed and v may hold
// a part too much, which the caller cuts.
func (d *Decoder) value(n *node, v *row.Vector) error {
	if d.pos == len(d.data) {
		return d.syntax("a value was expected")
	}
	c := d.data[d.pos]
	if c == 'n' {
		if err := d.literal("null"); err != nil {
			return err
		}
		return d.null(n, v)
	}
	switch n.t.Kind {
	case row.Struct:
		return d.structure(n, v)
	case row.Array:
		return d.array(n, v)
	case row.Map, row.Multiset:
		return d.mapping(n, v)
	case row.JSON:
		start := d.pos
		if err := d.skip(0); err != nil {
			return err
		}
		v.AppendBytes(d.data[start:d.pos])
		return nil
	}
	switch c {
	case '"':
		text, err := d.text()
		if err != nil {
			return err
		}
		return d.scalar(n, v, text)
	case '{', '[':
		start := d.pos
		if err := d.skip(0); err != nil {
			return err
		}
		if n.t.Kind != row.String {
			return &valueError{fmt.Errorf("%s does not take %s", n.t.Nullable(), shown(d.data[start:d.pos]))}
		}
		return d.scalar(n, v, d.data[start:d.pos])
	case 't', 'f':
		start := d.pos
		if err := d.skip(0); err != nil {
			return err
		}
		return d.scalar(n, v, d.data[start:d.pos])
	}
	text, err := d.number()
	if err != nil {
		return err
	}
	switch n.t.Kind {
	case row.Boolean, row.Date, row.Time, row.Timestamp, row.TimestampLTZ, row.IntervalMonths, row.IntervalTime, row.Bytes, row.UUID:
		return &valueError{fmt.Errorf("%s does not take the number %s", n.t.Nullable(), text)}
	}
	return d.scalar(n, v, text)
}

// scalar appends what text stands for. Numbers and BOOLEAN are taken from strings, too.
func (d *Decoder) scalar(n *node, v *row.Vector, text []byte) error {
	if n.t.Kind == row.Bytes {
		start := len(v.Heap)
		heap, err := base64.StdEncoding.AppendDecode(v.Heap, text)
		if err != nil {
			return &valueError{errors.New("not base64")}
		}
		v.Heap = heap
		v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(heap) - start)})
		return nil
	}
	if err := format.Append(v, n.t, text, d.opts.Zone); err != nil {
		return &valueError{fmt.Errorf("%s does not take %s: %w", n.t.Nullable(), shown(text), err)}
	}
	return nil
}

// shown is text as an error quotes it.
func shown(text []byte) string {
	const most = 60
	if len(text) > most {
		return fmt.Sprintf("%q...", text[:most])
	}
	return fmt.Sprintf("%q", text)
}

func (d *Decoder) structure(n *node, v *row.Vector) error {
	for i := range n.own {
		n.own[i].Truncate()
	}
	if err := d.object(n.fields, 0); err != nil {
		return err
	}
	for i := range n.own {
		n.own[i].Seal(1)
	}
	start := len(v.Heap)
	v.Heap = n.codec.AppendColumns(v.Heap, n.fields.cols, 0)
	v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(v.Heap) - start)})
	return nil
}

// pass is for a value of another kind than was expected.
func (d *Decoder) pass(n *node, want string) error {
	if err := d.skip(0); err != nil {
		return err
	}
	return &valueError{fmt.Errorf("%s takes %s", n.t.Nullable(), want)}
}

func (d *Decoder) array(n *node, v *row.Vector) error {
	if d.data[d.pos] != '[' {
		return d.pass(n, "an array")
	}
	d.pos++
	// The elements wait at the end of the node's own vector: an array of arrays uses another node for its elements.
	own := &n.own[0]
	own.Truncate()
	count := 0
	var bad error
	for {
		if d.space(); d.pos == len(d.data) {
			return d.syntax("the array does not end")
		}
		if d.data[d.pos] == ']' {
			d.pos++
			break
		}
		if count > 0 {
			if d.data[d.pos] != ',' {
				return d.syntax("a comma was expected")
			}
			d.pos++
			d.space()
		}
		if err := d.element(n.elem, own, count); err != nil {
			if _, value := errors.AsType[*valueError](err); !value {
				return err
			}
			bad = err
		}
		count++
	}
	if bad != nil {
		return bad
	}
	own.Seal(count)
	start := len(v.Heap)
	v.Heap = row.AppendList(v.Heap, n.elem.t, own, nil, count)
	v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(v.Heap) - start)})
	return nil
}

// element is value; a bad one leaves NULL behind, so that the values keep their count until the whole is given up.
func (d *Decoder) element(n *node, v *row.Vector, have int) error {
	err := d.value(n, v)
	if _, ok := errors.AsType[*valueError](err); ok {
		format.Cut(v, n.layout, have)
		v.AppendNull(n.layout)
	}
	return err
}

func (d *Decoder) mapping(n *node, v *row.Vector) error {
	if d.data[d.pos] != '{' {
		return d.pass(n, "an object")
	}
	d.pos++
	keys, values := &n.own[0], &n.own[1]
	keys.Truncate()
	values.Truncate()
	count := 0
	var bad error
	for first := true; ; first = false {
		if d.space(); d.pos == len(d.data) {
			return d.syntax("the object does not end")
		}
		if d.data[d.pos] == '}' {
			d.pos++
			break
		}
		if !first {
			if d.data[d.pos] != ',' {
				return d.syntax("a comma was expected")
			}
			d.pos++
			d.space()
		}
		if d.pos == len(d.data) || d.data[d.pos] != '"' {
			return d.syntax("a key in quotes was expected")
		}
		text, err := d.text()
		if err != nil {
			return err
		}
		if err := d.scalar(n.key, keys, text); err != nil {
			bad = err
			format.Cut(keys, n.key.layout, count)
			keys.AppendNull(n.key.layout)
		}
		if d.space(); d.pos == len(d.data) || d.data[d.pos] != ':' {
			return d.syntax("a colon was expected")
		}
		d.pos++
		d.space()
		if err := d.element(n.elem, values, count); err != nil {
			if _, value := errors.AsType[*valueError](err); !value {
				return err
			}
			bad = err
		}
		count++
	}
	if bad != nil {
		return bad
	}
	sel := lastOfEach(n.key, keys, count)
	keys.Seal(count)
	values.Seal(count)
	start := len(v.Heap)
	d.scratch = row.AppendList(d.scratch[:0], n.key.t, keys, sel, count)
	mid := len(d.scratch)
	d.scratch = row.AppendList(d.scratch, n.elem.t, values, sel, count)
	v.Heap = row.AppendMap(v.Heap, d.scratch[:mid], d.scratch[mid:])
	v.Spans = append(v.Spans, row.Span{Off: uint32(start), Len: uint32(len(v.Heap) - start)})
	return nil
}

// lastOfEach selects the last entry of each key, nil if none comes twice.
func lastOfEach(n *node, keys *row.Vector, count int) []int32 {
	if count < 2 {
		return nil
	}
	codec := row.NewCodec([]row.Type{n.t})
	col := []*row.Vector{keys}
	last := make(map[string]int32, count)
	for i := range count {
		last[string(codec.AppendColumns(nil, col, i))] = int32(i)
	}
	if len(last) == count {
		return nil
	}
	var sel []int32
	for i := range count {
		if last[string(codec.AppendColumns(nil, col, i))] == int32(i) {
			sel = append(sel, int32(i))
		}
	}
	return sel
}
