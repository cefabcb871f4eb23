package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/internal/errs"
)

func shape(cols ...columnShape) *tableShape {
	return &tableShape{Schema: "public", Name: "t", Columns: cols}
}

func col(num int16, name string, typ uint32) columnShape {
	return columnShape{Attnum: num, Name: name, TypeOID: typ, TypeMod: -1}
}

func attr(num int16, name string, typ uint32) attribute {
	return attribute{num: num, name: name, typ: typ, mod: -1}
}

// TestAlign: the log lists names and types in order; the catalog shows a later state. Each case is a history.
func TestAlign(t *testing.T) {
	const text, int4, int8 = 25, 23, 20
	for name, c := range map[string]struct {
		known *tableShape
		log   []columnShape // without numbers
		now   []attribute
		want  []int16 // nil: cannot be told
	}{
		"added": {shape(col(1, "a", int4)), []columnShape{col(0, "a", int4), col(0, "b", text)},
			[]attribute{attr(1, "a", int4), attr(2, "b", text)}, []int16{1, 2}},
		"renamed": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(2, "c", text)}, []int16{1, 2}},
		"renamed, and changed in type since": {shape(col(1, "a", int4), col(2, "b", int4)), []columnShape{col(0, "a", int4), col(0, "c", int4)},
			[]attribute{attr(1, "a", int4), attr(2, "c", int8)}, []int16{1, 2}},
		"renamed twice, the log shows the first": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(2, "d", text)}, []int16{1, 2}},
		"dropped and added again under its name": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "b", text)},
			[]attribute{attr(1, "a", int4), attr(3, "b", text)}, []int16{1, 2}},
		"dropped and another added": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(3, "c", text)}, []int16{1, 3}},
		"dropped": {shape(col(1, "a", int4), col(2, "b", text), col(3, "c", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(3, "c", text)}, []int16{1, 3}},
		"added, and dropped since": {shape(col(1, "a", int4)), []columnShape{col(0, "a", int4), col(0, "b", text)},
			[]attribute{attr(1, "a", int4)}, []int16{1, 2}},
		"names changed places": {shape(col(1, "a", text), col(2, "b", text)), []columnShape{col(0, "b", text), col(0, "a", text)},
			[]attribute{attr(1, "b", text), attr(2, "a", text)}, []int16{1, 2}},
		"fewer columns than must be there": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4)},
			[]attribute{attr(1, "a", int4), attr(2, "b", text)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			now := shape(c.log...)
			ok := c.known.align(now, c.now)
			if ok != (c.want != nil) {
				t.Fatalf("told apart: %v", ok)
			}
			if !ok {
				return
			}
			for i, n := range c.want {
				if now.Columns[i].Attnum != n {
					t.Errorf("column %q has number %d, want %d", now.Columns[i].Name, now.Columns[i].Attnum, n)
				}
			}
		})
	}
}

// TestAlignByName: where the history cannot be told, names are taken for columns, but never in the key.
func TestAlignByName(t *testing.T) {
	const text, int4 = 25, 23
	known := shape(col(1, "id", int4), col(2, "b", text), col(3, "c", text))
	catalog := []attribute{attr(1, "id", int4), attr(3, "c", text), attr(5, "b", text)}
	message := func(now *tableShape, key string) *pgoutput.RelationMsg {
		m := &pgoutput.RelationMsg{}
		for _, c := range now.Columns {
			m.Columns = append(m.Columns, pgoutput.Column{Name: c.Name, Key: c.Name == key})
		}
		return m
	}
	now := shape(col(0, "id", int4), col(0, "c", text), col(0, "b", text), col(0, "gone", text))
	if known.align(shape(now.Columns...), catalog) {
		t.Fatal("this history can be told after all")
	}
	if !known.alignByName(now, catalog, message(now, "id")) {
		t.Fatal("refused")
	}
	for i, want := range []int16{1, 3, 2, 4} {
		if got := now.Columns[i].Attnum; got != want {
			t.Errorf("column %q has number %d, want %d", now.Columns[i].Name, got, want)
		}
	}
	now = shape(col(0, "uid", int4), col(0, "c", text), col(0, "b", text))
	if known.alignByName(now, catalog, message(now, "uid")) {
		t.Error("a key column was taken for a new one")
	}
}

// TestHides: a column that has been renamed since it was added is noticed; one that was dropped, or others that came
// later, are not taken for it.
func TestHides(t *testing.T) {
	const int4 = 23
	known := shape(col(1, "id", int4), col(2, "v", int4))
	for name, c := range map[string]struct {
		log  []string // columns behind the known ones
		now  []attribute
		want bool
	}{
		"added":                      {[]string{"x"}, []attribute{attr(3, "x", int4)}, false},
		"added, and another since":   {[]string{"x"}, []attribute{attr(3, "x", int4), attr(4, "z", int4)}, false},
		"added, and dropped since":   {[]string{"x"}, nil, false},
		"added, and renamed since":   {[]string{"x"}, []attribute{attr(3, "y", int4)}, true},
		"its name given to another":  {[]string{"x"}, []attribute{attr(3, "y", int4), attr(4, "x", int4)}, true},
		"one of two renamed":         {[]string{"x", "z"}, []attribute{attr(3, "y", int4), attr(4, "z", int4)}, true},
		"dropped, and another added": {[]string{"x"}, []attribute{attr(4, "z", int4)}, true}, // or renamed: nobody knows
	} {
		t.Run(name, func(t *testing.T) {
			now := shape(known.Columns...)
			for _, n := range c.log {
				now.Columns = append(now.Columns[:len(now.Columns):len(now.Columns)], col(0, n, int4))
			}
			catalog := append([]attribute{attr(1, "id", int4), attr(2, "v", int4)}, c.now...)
			if !known.align(now, catalog) {
				t.Fatal("cannot be aligned")
			}
			if got := known.hides(now, catalog); got != c.want {
				t.Errorf("hides: %t", got)
			}
		})
	}
}

// TestMeant: a refresh names tables as the selection does, quotes included.
func TestMeant(t *testing.T) {
	shapes := map[uint32]*tableShape{
		1: {Schema: "public", Name: "orders"}, 2: {Schema: "public", Name: "order_lines"}, 3: {Schema: "sch.dot", Name: "a.b*?[x]"},
		4: {Schema: "public", Name: "a*"}, 5: {Schema: "public", Name: "ab"}, 6: {Schema: "sch", Name: "dot.x"}, 7: {Schema: "sch.dot", Name: "x"}, 8: {Schema: "public", Name: "x[y"},
	}
	for _, c := range []struct {
		patterns []string
		want     []uint32
		code     errs.Code // of the error
		words    string    // in it or its hint
	}{
		{nil, []uint32{1, 2, 3, 4, 5, 6, 7, 8}, "", ""},
		{[]string{"public.orders"}, []uint32{1}, "", ""},
		{[]string{`"sch.dot"."a.b*?[x]"`}, []uint32{3}, "", ""},
		{[]string{"sch.dot.a.b*?[x]"}, []uint32{3}, "", ""},
		{[]string{"public.order*", "public.orders"}, []uint32{1, 2}, "", ""},
		{[]string{"public.a*"}, []uint32{4, 5}, "", ""},
		{[]string{`"public"."a*"`}, []uint32{4}, "", ""},
		{[]string{`public.orders, sch."dot.x"`}, []uint32{1, 6}, "", ""},
		{[]string{"public.x[y"}, []uint32{8}, "", ""},
		{[]string{"sch.dot.x"}, nil, errs.TableUnknown, `sch."dot.x"`},
		{[]string{"public.ordres"}, nil, errs.TableUnknown, "did you mean public.orders?"},
		{[]string{`"sch.dot"."a.b*?[y]"`}, nil, errs.TableUnknown, `did you mean "sch.dot"."a.b*?[x]"?`},
		{[]string{"public.orders", "gone.*"}, nil, errs.TableUnknown, "gone.*"},
		{[]string{"orders"}, nil, errs.BadPattern, "public.orders"},
	} {
		got, err := meant(shapes, c.patterns)
		if e, ok := errs.As(err); c.code != "" && (!ok || e.Code != c.code || !strings.Contains(e.Message+e.Hint, c.words)) || c.code == "" && err != nil {
			t.Errorf("%q: %v, want %s %q", c.patterns, err, c.code, c.words)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q means %v, want %v", c.patterns, got, c.want)
		}
	}
}
