package postgres

import (
	"fmt"
	"math/rand/v2"
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

// again stands for "not told, so that the table is copied again".
const again = -99

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
		want  []int16 // nil: there is no reading; with again it is one of several
	}{
		"added": {shape(col(1, "a", int4)), []columnShape{col(0, "a", int4), col(0, "b", text)},
			[]attribute{attr(1, "a", int4), attr(2, "b", text)}, []int16{1, 2}},
		"renamed": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(2, "c", text)}, []int16{1, 2}},
		"renamed, and changed in type since": {shape(col(1, "a", int4), col(2, "b", int4)), []columnShape{col(0, "a", int4), col(0, "c", int4)},
			[]attribute{attr(1, "a", int4), attr(2, "c", int8)}, []int16{1, 2}},
		"renamed twice, the log shows the first": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(2, "d", text)}, []int16{1, 2}},
		// Or it became another type first, and was dropped and added again later.
		"dropped and added again under its name": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "b", int8)},
			[]attribute{attr(1, "a", int4), attr(3, "b", int8)}, []int16{1, 3, again}},
		"dropped and added again, and an older one renamed": {shape(col(1, "a", int4), col(2, "b", text), col(3, "c", text)), []columnShape{col(0, "a", int4), col(0, "d", text), col(0, "b", text)},
			[]attribute{attr(1, "a", int4), attr(3, "d", text), attr(4, "b", text)}, []int16{1, 3, 4}},
		"renamed, and dropped since": {shape(col(1, "a", int4), col(2, "b", int8), col(3, "c", int4)), []columnShape{col(0, "a", int4), col(0, "x", int8), col(0, "c", int4)},
			[]attribute{attr(1, "a", int4), attr(3, "c", int4)}, []int16{1, 2, 3, again}},
		"two dropped, two added, of which one has a name that was there": {shape(col(1, "a", int4), col(2, "d", int4), col(3, "c", text)), []columnShape{col(0, "a", int4), col(0, "x", text), col(0, "c", text)},
			[]attribute{attr(1, "a", int4)}, []int16{1, -1, -2, again}},
		"another type, at the end": {shape(col(1, "a", int4), col(2, "k", text)), []columnShape{col(0, "a", int4), col(0, "k", int4)},
			[]attribute{attr(1, "a", int4), attr(3, "k", int4)}, []int16{1, 3, again}},
		"the last one renamed, and dropped since": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "x", text)},
			[]attribute{attr(1, "a", int4)}, []int16{1, -1, again}},
		"not dropped yet": {shape(col(1, "a", int4), col(2, "b", text), col(3, "c", text)), []columnShape{col(0, "a", int4), col(0, "b", text), col(0, "c", text), col(0, "d", text)},
			[]attribute{attr(1, "a", int4), attr(3, "c", text), attr(4, "d", text)}, []int16{1, 2, 3, 4}},
		"names moved on since": {shape(col(1, "id", int4), col(2, "b", text), col(3, "c", text)), []columnShape{col(0, "id", int4), col(0, "c", text), col(0, "b", text), col(0, "gone", text)},
			[]attribute{attr(1, "id", int4), attr(3, "c", text), attr(5, "b", text)}, []int16{1, 3, 5, -1, again}},
		"the key renamed beside one that cannot be told": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "k", int4), col(0, "x", text)},
			[]attribute{attr(1, "k", int4)}, []int16{1, -1, again}},
		"dropped and another added": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(3, "c", text)}, []int16{1, 3}},
		"dropped": {shape(col(1, "a", int4), col(2, "b", text), col(3, "c", text)), []columnShape{col(0, "a", int4), col(0, "c", text)},
			[]attribute{attr(1, "a", int4), attr(3, "c", text)}, []int16{1, 3}},
		"added, and dropped since": {shape(col(1, "a", int4)), []columnShape{col(0, "a", int4), col(0, "b", text)},
			[]attribute{attr(1, "a", int4)}, []int16{1, -1}},
		"names changed places": {shape(col(1, "a", text), col(2, "b", text)), []columnShape{col(0, "b", text), col(0, "a", text)},
			[]attribute{attr(1, "b", text), attr(2, "a", text)}, []int16{1, 2}},
		"fewer columns than must be there": {shape(col(1, "a", int4), col(2, "b", text)), []columnShape{col(0, "a", int4)},
			[]attribute{attr(1, "a", int4), attr(2, "b", text)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			now := shape(c.log...)
			told, ok := c.known.align(now, c.now, func(i int) bool { return i == 0 })
			if ok != (c.want != nil) {
				t.Fatalf("there is a reading: %v", ok)
			}
			if !ok {
				return
			}
			want := slices.DeleteFunc(slices.Clone(c.want), func(n int16) bool { return n == again })
			if told != (len(want) == len(c.want)) {
				t.Errorf("told: %v", told)
			}
			for i, n := range want {
				if now.Columns[i].Attnum != n {
					t.Errorf("column %q has number %d, want %d", now.Columns[i].Name, now.Columns[i].Attnum, n)
				}
			}
		})
	}
}

// numbered is a column of a history; writer is the step that made it or named it.
type numbered struct {
	num    int16
	name   string
	writer uint32
}

// history is what happened to a table at random: known before, the log's description of it at some time, and the catalog
// later still.
type history struct {
	known      *tableShape
	log, table []numbered // at the time of the log, and now
	gone       map[int16]uint32
	at         uint32 // the transaction that the log describes
}

func newHistory(rng *rand.Rand) history {
	table := []numbered{{1, "id", 0}}
	next := int16(2)
	for range rng.IntN(4) {
		table = append(table, numbered{next, fmt.Sprintf("c%d", next), 0})
		next++
	}
	h := history{known: &tableShape{}, gone: map[int16]uint32{}}
	var xid uint32
	step := func() {
		xid++
		switch at := rng.IntN(len(table)); {
		case rng.IntN(3) == 0 || at == 0:
			name := fmt.Sprintf("c%d", rng.IntN(12))
			if !slices.ContainsFunc(table, func(c numbered) bool { return c.name == name }) {
				table = append(table, numbered{next, name, xid})
				next++
			}
		case rng.IntN(2) == 0:
			h.gone[table[at].num] = xid
			table = slices.Delete(slices.Clone(table), at, at+1)
		default:
			table = slices.Clone(table)
			name := fmt.Sprintf("c%d", rng.IntN(12))
			if !slices.ContainsFunc(table, func(c numbered) bool { return c.name == name }) {
				table[at].name, table[at].writer = name, xid
			}
		}
	}
	for _, c := range table {
		h.known.Columns = append(h.known.Columns, col(c.num, c.name, int4))
	}
	for range rng.IntN(6) {
		step()
	}
	xid++
	h.log, h.at = table, xid
	for range rng.IntN(6) {
		step()
	}
	h.table = table
	return h
}

// described is what the log says.
func (h *history) described() *tableShape {
	now := &tableShape{}
	for _, c := range h.log {
		now.Columns = append(now.Columns, col(0, c.name, int4))
	}
	return now
}

func (h *history) attrs() (attrs []attribute) {
	for _, c := range h.table {
		a := attr(c.num, c.name, int4)
		a.writer = c.writer
		attrs = append(attrs, a)
	}
	return attrs
}

const int4 = 23

// TestAlignTruth makes histories at random: where the table is not copied again, the reading is what happened.
func TestAlignTruth(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	wrong, told, asked := 0, 0, 0
	for range 200_000 {
		h := newHistory(rng)
		known, log, table, gone, at := h.known, h.log, h.table, h.gone, h.at
		now, attrs := h.described(), h.attrs()
		judge := func(read []columnShape) {
			for i, c := range log {
				isGone := func(num int16) bool { return num < 0 || gone[num] > 0 }
				// Of columns that are both gone, one may be taken for the other: the target lets go of them all.
				if got := read[i].Attnum; got != c.num && !(isGone(c.num) && isGone(got)) {
					wrong++
					t.Logf("known %v log %v now %v: read %v", known.Columns, log, table, read)
					return
				}
			}
		}
		if slices.EqualFunc(known.Columns, now.Columns, func(a, b columnShape) bool { return a.Name == b.Name }) {
			if known.renewed(attrs, gone, at) == nil {
				judge(known.Columns)
			}
			continue
		}
		asked++
		sure, ok := known.align(now, attrs, func(i int) bool { return i == 0 })
		if !ok || now.Columns[0].Attnum != 1 {
			t.Fatalf("no reading: known %v, log %v, now %v", known.Columns, log, table)
		}
		if !sure || known.outlived(now, attrs, gone, at) || known.hides(now, attrs) {
			continue
		}
		told++
		judge(now.Columns)
	}
	t.Logf("of %d histories %d are told, %d of them wrongly", asked, told, wrong)
	if told < asked/2 {
		t.Errorf("of %d histories only %d are told", asked, told)
	}
	if wrong > 0 {
		t.Errorf("%d histories are told otherwise than they were", wrong)
	}
}

// TestHides: a column that has been renamed since it was added is noticed; one that was dropped, or others that came
// later, are not taken for it.
func TestHides(t *testing.T) {
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
			if _, ok := known.align(now, catalog, func(i int) bool { return i == 0 }); !ok {
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

// TestLeftOutTruth: whatever happens to a table, a column that is left out is never taken for one that is not.
func TestLeftOutTruth(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	read, aside := 0, 0
	for range 200_000 {
		h := newHistory(rng)
		if len(h.known.Columns) < 2 {
			continue
		}
		secret := h.known.Columns[1+rng.IntN(len(h.known.Columns)-1)]
		s := &Source{left: map[uint32][]int16{7: {secret.Attnum}}, tables: map[uint32]*tableShape{7: h.known},
			opts: Options{Excluded: func(_, _, column string) bool { return column == secret.Name }}}
		now, attrs := h.described(), h.attrs()
		if slices.EqualFunc(h.known.Columns, now.Columns, func(a, b columnShape) bool { return a.Name == b.Name }) {
			if h.known.renewed(attrs, h.gone, h.at) != nil || s.mayBear(7, h.known, attrs) {
				continue
			}
			for i, c := range h.log {
				if c.num == secret.Attnum && h.known.Columns[i].Attnum != secret.Attnum {
					t.Fatalf("column %d shows: known %v log %v now %v", c.num, h.known.Columns, h.log, h.table)
				}
			}
			continue
		}
		if _, ok := h.known.align(now, attrs, func(i int) bool { return i == 0 }); !ok || s.mayShow(7, h.known, now, attrs) {
			aside++
			continue
		}
		read++
		left := s.outward(&pgoutput.RelationMsg{ID: 7, Name: "t"}, now, "public")
		for i, c := range h.log {
			if c.num == secret.Attnum && !slices.Contains(left, now.Columns[i].Attnum) {
				t.Fatalf("column %d shows: known %v log %v now %v: read %v, left out %v", c.num, h.known.Columns, h.log, h.table, now.Columns, left)
			}
		}
	}
	t.Logf("%d read, %d set aside", read, aside)
	if read < aside/2 {
		t.Errorf("of %d descriptions only %d are read", read+aside, read)
	}
}
