package postgres

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Columns that the mirror leaves out. The patterns judge a column by its name when it is first seen; from then on it is in
// or out by its number, whatever it or its table is called later: what was not to leave the database must not leave it
// because somebody renames it.

// leftKey + OID holds the numbers of a table's columns that are left out.
const leftKey = "left/"

func leftState(oid uint32, nums []int16) dataflow.StateChange {
	key := leftKey + strconv.FormatUint(uint64(oid), 10)
	if len(nums) == 0 {
		return dataflow.StateChange{Key: key}
	}
	v, err := json.Marshal(nums)
	if err != nil {
		panic(err) // numbers
	}
	return dataflow.StateChange{Key: key, Value: v}
}

// LeftOut reads from a stored state the numbers of the columns that are left out, by the OID of their table.
func LeftOut(state dataflow.State) (map[uint32][]int16, error) {
	left := map[uint32][]int16{}
	for key, value := range state {
		if !strings.HasPrefix(key, leftKey) {
			continue
		}
		oid, ok := StateTable(key)
		var nums []int16
		if err := json.Unmarshal(value, &nums); err != nil || !ok {
			return nil, errs.New(errs.StateCorrupt, "stored columns %q of %q", value, key)
		}
		left[oid] = nums
	}
	return left, nil
}

// leftOut tells whether a column is left out. One that is not known yet is judged by its name.
func (s *Source) leftOut(oid uint32, schema, table, column string, num int16) bool {
	if slices.Contains(s.left[oid], num) {
		return true
	}
	if known := s.tables[oid]; known != nil && slices.ContainsFunc(known.Columns, func(c columnShape) bool { return c.Attnum == num }) {
		return false
	}
	return s.opts.Excluded(schema, table, column)
}

func (s *Source) leaves(t *pg.Table, c *pg.Column) bool {
	return s.leftOut(t.OID, t.Schema, t.Name, c.Name, c.Attnum)
}

// leaveColumns notes which columns of a table are left out, as the catalog has it now, and gives what is to be stored.
func (s *Source) leaveColumns(t *pg.Table) []dataflow.StateChange {
	var nums []int16
	for i := range t.Columns {
		if s.leaves(t, &t.Columns[i]) {
			nums = append(nums, t.Columns[i].Attnum)
		}
	}
	return s.noteLeft(t.OID, nums)
}

// noteLeft keeps the numbers of a table's columns that are left out, and those that were before; what is to be stored is
// nil if that is nothing new. Numbers below zero are of columns that the catalog did not have: they count as long as the
// shape that is known has them.
func (s *Source) noteLeft(oid uint32, nums []int16) []dataflow.StateChange {
	before, known := s.left[oid], s.tables[oid]
	for _, n := range before {
		named := n > 0 || known != nil && slices.ContainsFunc(known.Columns, func(c columnShape) bool { return c.Attnum == n })
		if named && !slices.Contains(nums, n) {
			nums = append(nums, n)
		}
	}
	slices.Sort(nums)
	if nums = slices.Compact(nums); slices.Equal(nums, before) {
		return nil
	}
	s.left[oid] = nums
	return []dataflow.StateChange{leftState(oid, nums)}
}

// leaveListed notes columns that are new and left out. Of a table that is published with a list the log does not tell them.
func (s *Source) leaveListed(columns []listedColumn) error {
	var state []dataflow.StateChange
	for i, c := range columns {
		known := s.tables[c.table]
		if known == nil || slices.Contains(s.left[c.table], c.num) || !s.leftOut(c.table, known.Schema, known.Name, c.name, c.num) {
			continue
		}
		nums := slices.Clone(s.left[c.table])
		for _, d := range columns[i:] {
			if d.table == c.table && s.leftOut(d.table, known.Schema, known.Name, d.name, d.num) {
				nums = append(nums, d.num)
			}
		}
		state = append(state, s.noteLeft(c.table, nums)...)
	}
	if len(state) == 0 {
		return nil
	}
	if err := s.reader.flush(); err != nil {
		return err
	}
	return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: append(state, positionState(s.reader.position)...)})
}

// outward are the columns of now that are left out.
func (s *Source) outward(m *pgoutput.RelationMsg, now *tableShape, namespace string) (nums []int16) {
	for _, c := range now.Columns {
		if s.leftOut(m.ID, namespace, m.Name, c.Name, c.Attnum) {
			nums = append(nums, c.Attnum)
		}
	}
	return nums
}

// mayShow tells whether values of a column that is left out may stand behind another name in now: the log sends one, and
// what is said of its table can be read in more than one way, or a list of the user's may have grown by one, at any place.
// A wrong guess would do no harm elsewhere, since a copy follows it; here it would have the target show them until then.
func (s *Source) mayShow(oid uint32, known, now *tableShape, attrs []attribute) bool {
	left := s.left[oid]
	if s.sendsLeft(oid, known) {
		return !known.clear(now, attrs)
	}
	return s.opts.KeepPublication && len(left) > 0 && len(now.Columns) > len(known.Columns)
}

// sendsLeft tells whether the log sends columns that are left out.
func (s *Source) sendsLeft(oid uint32, known *tableShape) bool {
	left := s.left[oid]
	return len(left) > 0 && slices.ContainsFunc(known.Columns, func(c columnShape) bool { return slices.Contains(left, c.Attnum) })
}

// mayBear is mayShow for a description like the last one: a column that is left out may have the name of one in front of
// it, which went, and another one its own name. When all of them are gone, nothing else tells.
func (s *Source) mayBear(oid uint32, known *tableShape, attrs []attribute) bool {
	if !s.sendsLeft(oid, known) {
		return false
	}
	isGone := func(c columnShape) bool {
		return !slices.ContainsFunc(attrs, func(a attribute) bool { return a.num == c.Attnum })
	}
	for i, c := range known.Columns {
		if slices.Contains(s.left[oid], c.Attnum) && isGone(c) && slices.ContainsFunc(known.Columns[:i], func(k columnShape) bool {
			return isGone(k) && k.TypeOID == c.TypeOID && k.TypeMod == c.TypeMod && !slices.Contains(s.left[oid], k.Attnum)
		}) {
			return true
		}
	}
	return false
}

// clear tells whether only one reading of the log makes now of t.
func (t *tableShape) clear(now *tableShape, attrs []attribute) bool {
	return newAlignment(t, now, attrs).read(func(int) int { return 0 }, 0).readings == 1
}

// relabel brings the target a column that was taken for one that is left out and is none, or the reverse, when the catalog
// tells better than the log did. known and shape are the same columns under other numbers; what is brought has no values
// yet, since a copy follows.
func (s *Source) relabel(t *pg.Table, known, shape *tableShape) (steps []changelog.SchemaStep) {
	for i, c := range shape.Columns {
		was := slices.Contains(s.left[t.OID], known.Columns[i].Attnum)
		switch is := s.leaves(t, t.Column(c.Name)); {
		case was && !is:
			steps = append(steps, changelog.SchemaStep{Kind: changelog.AddColumn, Column: c.Name, Type: t.Column(c.Name).FormattedType})
		case is && !was:
			steps = append(steps, changelog.SchemaStep{Kind: changelog.DropColumn, Column: c.Name})
		}
	}
	return steps
}
