package postgres

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// How a table's columns came about: the log tells the new ones, the catalog their numbers, now.

// attribute is a column as the catalog has it now.
type attribute struct {
	num       int16
	name      string
	typ       uint32
	mod       int32
	formatted string
	notNull   bool
	def       *string
	missing   *string // the value of rows that were there before the column; nil if they were rewritten
	generated bool
	rewritten bool   // the table has been written anew at some time
	root      bool   // of a partitioned table
	writer    uint32 // the transaction that made the column, or altered it last
}

// align gives now's columns their numbers.
//
// The log tells only the new columns. Which of them are old ones is told by their numbers in the catalog, which outlive
// renames. The catalog shows the present, later than the log, so it is used only for what cannot have changed since: a
// column that exists now has existed all along, and the log lists columns in the order of their numbers.
func (s *Source) align(m *pgoutput.RelationMsg, known, now *tableShape, namespace string, attrs []attribute) error {
	switch told, ok := known.align(now, attrs, func(i int) bool { return m.Columns[i].Key && m.Identity != 'f' }); {
	case !ok:
		return errs.New(errs.SourceSchemaChange,
			"table %s.%s changed its columns, and how cannot be told any more, because it has changed again since", namespace, m.Name).
			WithHint("make the same change on the target by hand, then copy the table again: weir sources refresh '%s'", selection.Quote(pg.TargetName{Schema: namespace, Name: m.Name}))
	case !told:
		s.env.Log.Info("how a table changed its columns cannot be told any more; it is copied again", "table", namespace+"."+m.Name)
		s.copyLater(m.ID)
	}
	return nil
}

// diff explains how known became now, which is what a rename, a drop, an add or a change of type did to it. Those of the
// columns left are none of the target's business.
func (s *Source) diff(m *pgoutput.RelationMsg, known, now *tableShape, namespace string, attrs []attribute, gone map[int16]uint32, left []int16) ([]changelog.SchemaStep, error) {
	sent := slices.DeleteFunc(slices.Clone(attrs), func(a attribute) bool { return a.generated || s.leftOut(m.ID, namespace, m.Name, a.name, a.num) })
	if known.hides(now, sent) {
		s.env.Log.Info("a new column has another name by now, and what its rows were given cannot be told; the table is copied again", "table", namespace+"."+m.Name)
		s.copyLater(m.ID)
	}
	if xid := s.xid(); xid != 0 && known.outlived(now, attrs, gone, xid) {
		s.env.Log.Info("a new column may be an earlier one of its name, which is gone; the table is copied again", "table", namespace+"."+m.Name)
		s.copyLater(m.ID)
	}
	byNumber := map[int16]*attribute{}
	for i := range attrs {
		byNumber[attrs[i].num] = &attrs[i]
	}
	var steps []changelog.SchemaStep
	if known.Schema != now.Schema || known.Name != now.Name {
		steps = append(steps, changelog.SchemaStep{Kind: changelog.RenameTable, NewName: now.Name})
	}
	formatted := func(c *columnShape) (string, error) {
		if a := byNumber[c.Attnum]; a != nil && a.is(c) {
			return a.formatted, nil
		}
		var f *string
		if err := s.ctl.QueryRow(s.ctx, `SELECT format_type($1::oid, $2::int4)`, fmt.Sprint(c.TypeOID), c.TypeMod).Scan(&f); err != nil {
			return "", s.lost(err)
		}
		if f == nil {
			return "text", nil
		}
		return *f, nil
	}
	// Drops first: a new column may have a dropped one's name.
	for _, k := range known.Columns {
		if !slices.ContainsFunc(now.Columns, func(c columnShape) bool { return c.Attnum == k.Attnum }) && !slices.Contains(left, k.Attnum) {
			steps = append(steps, changelog.SchemaStep{Kind: changelog.DropColumn, Column: k.Name})
		}
	}
	var added []*columnShape
	for i := range now.Columns {
		c := &now.Columns[i]
		if slices.Contains(left, c.Attnum) {
			continue
		}
		at := slices.IndexFunc(known.Columns, func(k columnShape) bool { return k.Attnum == c.Attnum })
		if at < 0 {
			added = append(added, c)
			continue
		}
		k := &known.Columns[at]
		typ, err := formatted(c)
		if err != nil {
			return nil, err
		}
		if k.Name != c.Name {
			steps = append(steps, changelog.SchemaStep{Kind: changelog.RenameColumn, Column: k.Name, NewName: c.Name, Type: typ})
		}
		if k.TypeOID != c.TypeOID || k.TypeMod != c.TypeMod {
			step := changelog.SchemaStep{Kind: changelog.AlterType, Column: c.Name, Type: typ}
			// A sequence may have another name at the target, and what draws from one is cast without losing its default.
			if a := byNumber[c.Attnum]; a != nil && a.is(c) && a.def != nil && !strings.Contains(*a.def, "nextval(") {
				step.NewDefault = *a.def
			}
			steps = append(steps, step)
		}
	}
	for _, c := range added {
		typ, err := formatted(c)
		if err != nil {
			return nil, err
		}
		step := changelog.SchemaStep{Kind: changelog.AddColumn, Column: c.Name, Type: typ}
		switch a := byNumber[c.Attnum]; {
		case a == nil:
		case !a.is(c):
			// It is of another type by now, or another column of this name: what that gives to rows is no value of this one's.
			s.copyLater(m.ID)
		default:
			step.NotNull = a.notNull
			switch {
			case a.missing != nil:
				step.Default = pg.Literal(*a.missing) + "::" + typ
			case a.def == nil:
			case isLiteral(*a.def) && a.root:
				step.Default = *a.def // its partitions know better; nobody asks them
			case isLiteral(*a.def) && !a.rewritten:
				// The default came after the column: rows that were there have none.
			default:
				// Each row got a value of its own, or the table was written anew since: only the rows can tell.
				s.copyLater(m.ID)
			}
			if a.def != nil {
				step.NewDefault = *a.def
			}
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// hides tells whether a column that is new in now may be there today under another name, so that the catalog does not
// tell what it gave to the rows that were there. now has its numbers; attrs are the columns that the log can show.
func (t *tableShape) hides(now *tableShape, attrs []attribute) bool {
	var last int16
	newest, found := t.newest(), map[int16]bool{}
	unnamed := false
	for _, c := range now.Columns {
		if slices.ContainsFunc(t.Columns, func(k columnShape) bool { return k.Attnum == c.Attnum }) {
			continue
		}
		if slices.ContainsFunc(attrs, func(a attribute) bool { return a.num == c.Attnum && a.name == c.Name }) {
			found[c.Attnum], last = true, max(last, c.Attnum)
		} else {
			unnamed = true
		}
	}
	for _, a := range attrs {
		// One behind all that were found came later than this change, unless one is missing.
		if a.num > newest && !found[a.num] && (unnamed || a.num < last) {
			return true
		}
	}
	return false
}

// outlived tells whether a column of now, which has its numbers, may be another one than they say: one that is new, and
// what has its name today came or got it after the transaction xid, which now is of; or one that t has under its name, and
// that was gone by then. gone are the columns that were dropped, and the transactions that did it.
func (t *tableShape) outlived(now *tableShape, attrs []attribute, gone map[int16]uint32, xid uint32) bool {
	newest, present := t.newest(), map[int16]*attribute{}
	for i := range attrs {
		present[attrs[i].num] = &attrs[i]
	}
	goneSince := false
	for _, by := range gone {
		goneSince = goneSince || !before(by, xid)
	}
	last := newest
	for _, c := range now.Columns {
		switch a := present[c.Attnum]; {
		case a != nil && c.Attnum > newest:
			if c.Attnum < last || goneSince && before(xid, a.writer) {
				return true
			}
			last = c.Attnum
		case gone[c.Attnum] != 0 && before(gone[c.Attnum], xid):
			if t.another(attrs, newest, &c) {
				return true
			}
		}
	}
	return false
}

// align gives now's columns their numbers.
//
// The first of them are columns of t, in t's order: all that exist today, and any of those that are gone. Behind them are
// new ones. told: only one reading of the log is like that, or only one in which every column has a name that t or the
// catalog has for it. Otherwise the one is taken that makes do with the fewest other names, and keeps the key; it may be
// wrong, and lose values, so that the table has to be copied again. ok is false when there is none.
func (t *tableShape) align(now *tableShape, attrs []attribute, key func(column int) bool) (told, ok bool) {
	a := newAlignment(t, now, attrs)
	best := a.read(func(int) int { return 0 }, 0)
	if best.readings == 0 {
		return false, false
	}
	if told = best.readings == 1 || best.plain == 1; !told {
		best = a.read(func(column int) int {
			if key(column) {
				return lostKey
			}
			return 0
		}, lostColumn)
	}
	if best.strange >= lostKey {
		return false, false
	}
	a.number()
	return told, true
}

// lostKey counts for more than all else. lostColumn keeps a guess from giving a column a name or type of which nothing
// is known: at the target it would bring its constraints along, or values that do not fit.
const (
	lostKey    = 1 << 30
	lostColumn = 1 << 12
)

// alignment looks for the readings of align. reading[i][k] is of now's columns from i on, with t's from k on: of those
// there are so many, and so many without a strange name (both counted up to 2), and the best has so many strange names.
type alignment struct {
	known, now *tableShape
	present    map[int16]*attribute
	byName     map[string]*attribute
	newest     int16 // of the known columns
	reading    [][]reading
}

type reading struct {
	readings, plain uint8
	strange         int
	dropped         bool // the best begins with the known column being gone
}

func newAlignment(known, now *tableShape, attrs []attribute) *alignment {
	a := &alignment{known: known, now: now, present: map[int16]*attribute{}, byName: map[string]*attribute{}, newest: known.newest()}
	for i := range attrs {
		a.present[attrs[i].num], a.byName[attrs[i].name] = &attrs[i], &attrs[i]
	}
	a.reading = make([][]reading, len(now.Columns)+1)
	for i := range a.reading {
		a.reading[i] = make([]reading, len(known.Columns)+1)
	}
	return a
}

// read fills in the table from its end. asNew is what it costs to take a column for a new one, asAnother to take one for an
// old one of another name or type.
func (a *alignment) read(asNew func(column int) int, asAnother int) reading {
	for i := len(a.now.Columns); i >= 0; i-- {
		for k := len(a.known.Columns); k >= 0; k-- {
			var r reading
			if i < len(a.now.Columns) {
				c := &a.now.Columns[i]
				switch {
				case k < len(a.known.Columns):
					old := &a.known.Columns[k]
					x, cost := a.present[old.Attnum], 0
					strange := c.Name != old.Name && (x == nil || x.name != c.Name)
					if strange || (c.TypeOID != old.TypeOID || c.TypeMod != old.TypeMod) && (x == nil || !x.is(c)) {
						cost = asAnother
					}
					r = a.reading[i+1][k+1].with(strange, cost)
				default:
					r = a.reading[i+1][k].with(!a.isNew(i), asNew(i))
				}
			} else if k == len(a.known.Columns) {
				r = reading{readings: 1, plain: 1}
			}
			if k < len(a.known.Columns) && a.present[a.known.Columns[k].Attnum] == nil {
				// Of two that are as good the one that drops it: what has its name today is another column.
				if d := a.reading[i][k+1]; d.readings > 0 {
					if r.readings == 0 || d.strange <= r.strange {
						r.strange, r.dropped = d.strange, true
					}
					r.readings, r.plain = min(r.readings+d.readings, 2), min(r.plain+d.plain, 2)
				}
			}
			a.reading[i][k] = r
		}
	}
	return a.reading[0][0]
}

// isNew tells whether the catalog has a new column of this column's name, in front of those of the columns behind it.
func (a *alignment) isNew(column int) bool {
	number := func(c columnShape) int16 {
		if x := a.byName[c.Name]; x != nil && x.num > a.newest {
			return x.num
		}
		return 0
	}
	n := number(a.now.Columns[column])
	return n > 0 && !slices.ContainsFunc(a.now.Columns[column+1:], func(c columnShape) bool { m := number(c); return m > 0 && m < n })
}

// with is r with one more column in front.
func (r reading) with(strange bool, cost int) reading {
	if r.readings == 0 {
		return reading{}
	}
	r.dropped = false
	if r.strange += cost; strange {
		r.strange++
		r.plain = 0
	}
	return r
}

// number gives now's columns the numbers of the best reading.
func (a *alignment) number() {
	k, free := 0, int16(0)
	for _, old := range a.known.Columns {
		free = min(free, old.Attnum)
	}
	for i := range a.now.Columns {
		c := &a.now.Columns[i]
		for a.reading[i][k].dropped {
			k++
		}
		if k < len(a.known.Columns) {
			c.Attnum = a.known.Columns[k].Attnum
			k++
			continue
		}
		if x := a.byName[c.Name]; x != nil && x.num > a.newest {
			c.Attnum = x.num
			continue
		}
		// New then and gone now, or taken for new: its number is one that no column will ever have.
		free--
		c.Attnum = free
	}
}

// renewed tells which columns are others than in t, under their names and types, so that the log, in the transaction xid,
// shows the table as it was; nil if none are. gone are the columns that were dropped, and the transactions that did it.
//
// One that was dropped and added again is found by its name. That may be early: the log can be before that, and is for sure
// when it lists such a column in front of one that was there first. If the old one was gone before xid, it is not early,
// and one that has another name by now gets a number that no column will ever have.
func (t *tableShape) renewed(attrs []attribute, gone map[int16]uint32, xid uint32) *tableShape {
	newest, free, present := t.newest(), int16(0), map[int16]bool{}
	for i := range attrs {
		present[attrs[i].num] = true
	}
	for _, k := range t.Columns {
		free = min(free, k.Attnum)
	}
	now := &tableShape{Schema: t.Schema, Name: t.Name, Version: t.Version + 1, Columns: slices.Clone(t.Columns)}
	var found, sure bool
	last, sorted := int16(0), true
	for i, k := range t.Columns {
		if !present[k.Attnum] {
			heir := slices.IndexFunc(attrs, func(a attribute) bool { return a.name == k.Name && a.follows(newest, &k) })
			by, dropped := gone[k.Attnum]
			early := !dropped || !before(by, xid)
			switch {
			case heir >= 0:
				now.Columns[i].Attnum = attrs[heir].num
				found, sure = true, sure || !early
			case !early && t.another(attrs, newest, &k):
				free--
				now.Columns[i].Attnum = free
				found, sure = true, true
			}
		}
		if n := now.Columns[i].Attnum; n > 0 {
			sorted = sorted && n > last
			last = n
		}
	}
	if !found || !sorted && !sure {
		return nil
	}
	return now
}

// another tells whether the catalog has a column that may have been shown as k, which is gone: a new one, or one that has
// a name today that was not its own in t.
func (t *tableShape) another(attrs []attribute, newest int16, k *columnShape) bool {
	return slices.ContainsFunc(attrs, func(a attribute) bool {
		return a.follows(0, k) && (a.num > newest || a.name == k.Name || !t.has(a.name))
	})
}

// newest is the highest number of a column.
func (t *tableShape) newest() (num int16) {
	for _, c := range t.Columns {
		num = max(num, c.Attnum)
	}
	return num
}

func (t *tableShape) has(column string) bool {
	return slices.ContainsFunc(t.Columns, func(c columnShape) bool { return c.Name == column })
}

// is tells whether a column has the type today that the log gave it.
func (a *attribute) is(c *columnShape) bool { return a.typ == c.TypeOID && a.mod == c.TypeMod }

// follows tells whether a column is newer than newest, and the log would show it as it showed k but for the name.
func (a *attribute) follows(newest int16, k *columnShape) bool {
	return a.num > newest && a.is(k) && !a.generated
}

// before compares numbers of transactions, which are counted in a circle. They get them when they first write, or ask for
// a lock, so that the one with the lower number may still have ended later.
func before(xid, than uint32) bool { return int32(xid-than) < 0 }

// literal is a constant as the server writes one: the same wherever and whenever it is evaluated.
var literal = regexp.MustCompile(`^(NULL|true|false|-?[0-9.]+|'([^']|'')*')(::[a-zA-Z_ ".0-9]+(\([0-9, ]+\))?(\[\])*)*$`)

func isLiteral(expr string) bool { return literal.MatchString(expr) }

// attributes reads a table's columns as they are now, their defaults too where these matter, and by which transaction
// those that are gone were dropped.
func (s *Source) attributes(oid uint32, defaults bool) (attrs []attribute, gone map[int16]uint32, err error) {
	expression := "NULL"
	if defaults {
		expression = "pg_get_expr(d.adbin, d.adrelid)" // which waits for whoever has the table locked
	}
	rows, err := s.ctl.Query(s.ctx, `SELECT a.attnum, a.attname, a.atttypid::int8, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull,
			`+expression+`, a.attgenerated <> '',
			CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END, c.relfilenode <> c.oid, c.relkind = 'p',
			a.xmin::text::int8, a.attisdropped
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = $1::oid AND a.attnum > 0 ORDER BY a.attnum`, fmt.Sprint(oid))
	if err != nil {
		return nil, nil, s.lost(err)
	}
	gone = map[int16]uint32{}
	var a attribute
	var typ, writer int64
	var dropped bool
	_, err = pgx.ForEachRow(rows, []any{&a.num, &a.name, &typ, &a.mod, &a.formatted, &a.notNull, &a.def, &a.generated, &a.missing, &a.rewritten, &a.root, &writer, &dropped}, func() error {
		a.typ, a.writer = uint32(typ), uint32(writer)
		if dropped {
			gone[a.num] = a.writer
		} else {
			attrs = append(attrs, a)
		}
		a.def, a.missing = nil, nil
		return nil
	})
	if err != nil {
		return nil, nil, s.lost(err)
	}
	return attrs, gone, nil
}
