package typed

import (
	"bytes"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// shape is a version of a table's shape in the stream: where the wanted columns are.
type shape struct {
	table  int // -1: not asked for
	places []int
	vals   []value // scratch: the row, and the row before
	old    []value
}

// value is a column of an image: its kind, and the bytes of text.
type value struct {
	kind byte
	text []byte
}

// shapeOf is the shape that rel describes.
func (s *Source) shapeOf(rel *changelog.Relation) (*shape, error) {
	if sh := s.byRel[rel]; sh != nil {
		return sh, nil
	}
	sh := &shape{table: -1}
	if i, ok := s.byName[[2]string{rel.Schema, rel.Name}]; ok {
		names := make([]string, len(rel.Columns))
		for c := range rel.Columns {
			names[c] = rel.Columns[c].Name
		}
		t := s.tables[i]
		sh.table, sh.places = i, t.places(names)
		for c, at := range sh.places {
			if at < 0 && t.Metadata[c] == "" {
				return nil, errs.New(errs.SourceSchemaChange, "table %s has no column %s any more, which a query reads", rel, t.Columns[c].Name).WithHint("%s", hintAnew)
			}
		}
		sh.vals, sh.old = make([]value, len(names)), make([]value, len(names))
		for old, x := range s.byRel {
			if x.table == i {
				delete(s.byRel, old) // an older version does not come again
			}
		}
	}
	s.byRel[rel] = sh
	return sh, nil
}

// places are where the table's columns are among the names; -1: nowhere.
func (t *table) places(names []string) []int {
	places := make([]int, len(t.Columns))
	for c := range t.Columns {
		places[c] = -1
		if t.Metadata[c] != "" {
			continue
		}
		for i, name := range names {
			if name == t.Columns[c].Name {
				places[c] = i
			}
		}
	}
	return places
}

// split takes an image apart.
func split(dst []value, im changelog.Image) error {
	it := im.Iter()
	for i := range dst {
		kind, raw := it.Next()
		switch kind {
		case changelog.ValueText:
			dst[i] = value{kind, raw[4:]}
		case changelog.ValueNull, changelog.ValueUnsent:
			dst[i] = value{kind: kind}
		default:
			return errs.New(errs.SourceProtocol, "a row with a value of kind %q where text was asked for, or of too few columns", kind)
		}
	}
	return nil
}

// change appends an entry of a transaction that was committed at commit, zero if that is not known, to its table's batch, and
// tells the table if the batch is full by it.
func (s *Source) change(rows *changelog.Rows, e *changelog.Entry, commit time.Time) (full int, err error) {
	sh, err := s.shapeOf(rows.Relation(e))
	if err != nil || sh.table < 0 {
		return -1, err
	}
	t := s.tables[sh.table]
	if t.op = 0; !commit.IsZero() {
		t.op = commit.UnixMicro()
	}
	now, before := rows.New(e), rows.Old(e)
	if len(now) > 0 {
		if err := split(sh.vals, now); err != nil {
			return -1, err
		}
	}
	if len(before) > 0 {
		if err := split(sh.old, before); err != nil {
			return -1, err
		}
	}
	switch {
	case t.Key == nil:
		if len(before) > 0 {
			err = t.append(sh, sh.old, -1, 0)
		} else if e.Op != changelog.Insert {
			err = errs.New(errs.SourceStream, "table %s has no key, and the source does not tell the rows that go any more", t).
				WithFix("ALTER TABLE " + t.String() + " REPLICA IDENTITY FULL;")
		}
		if err == nil && len(now) > 0 {
			err = t.append(sh, sh.vals, 1, 0)
		}
	case len(now) == 0:
		err = t.appendKey(sh, sh.old, 0)
	default:
		if len(before) > 0 && t.rekeyed(sh) {
			err = t.appendKey(sh, sh.old, t.unsent(sh))
		}
		if err == nil {
			err = t.append(sh, sh.vals, 1, t.unsent(sh))
		}
	}
	if t.batch.Len >= row.MaxBatch-1 {
		full = sh.table
	} else {
		full = -1
	}
	return full, err
}

// rekeyed tells whether an update changed the key. A large value of the key that it did not change is in the old row.
func (t *table) rekeyed(sh *shape) (changed bool) {
	for _, c := range t.Key {
		now, before := &sh.vals[sh.places[c]], &sh.old[sh.places[c]]
		if now.kind == changelog.ValueUnsent {
			*now = *before
		}
		changed = changed || !bytes.Equal(now.text, before.text)
	}
	return changed
}

// unsent is the mask of the columns that the new row leaves out.
func (t *table) unsent(sh *shape) int64 {
	mask := int64(0)
	for c, at := range sh.places {
		if at >= 0 && sh.vals[at].kind == changelog.ValueUnsent {
			mask |= 1 << min(c, maxUnsent-1)
		}
	}
	return mask
}

// append appends a whole row.
func (t *table) append(sh *shape, vals []value, weight, unsent int64) error {
	for c, at := range sh.places {
		v := value{kind: changelog.ValueNull}
		if at >= 0 {
			v = vals[at]
		}
		if v.kind == changelog.ValueUnsent {
			if c >= maxUnsent || t.Key == nil {
				return errs.New(errs.SourceStream, "an update of table %s leaves out column %s, which cannot be completed", t, t.Columns[c].Name).
					WithFix("ALTER TABLE " + t.String() + " REPLICA IDENTITY FULL;")
			}
			t.batch.Cols[c].AppendNull(t.Columns[c].Type.Layout())
			continue
		}
		if err := t.read[c].append(t, c, v.text, v.kind == changelog.ValueNull); err != nil {
			return err
		}
	}
	t.endRow(weight, unsent)
	return nil
}

// maxUnsent is operator.MaxUnsent: parts do not know each other.
const maxUnsent = 64

// unsentMoved is operator.UnsentMoved.
const unsentMoved = -1

// appendKey appends that a key has no row any more. moved: the next row is the same one under another key, and leaves
// something out.
func (t *table) appendKey(sh *shape, vals []value, moved int64) error {
	k := 0
	for c, at := range sh.places {
		if k < len(t.Key) && t.isKey(c) {
			k++
			if err := t.read[c].append(t, c, vals[at].text, vals[at].kind != changelog.ValueText); err != nil {
				return err
			}
			continue
		}
		t.batch.Cols[c].AppendNull(t.Columns[c].Type.Layout())
	}
	if moved != 0 {
		moved = unsentMoved
	}
	t.endRow(-1, moved)
	return nil
}

func (t *table) isKey(c int) bool {
	for _, k := range t.Key {
		if k == c {
			return true
		}
	}
	return false
}

func (t *table) endRow(weight, unsent int64) {
	if t.Key != nil {
		mask := t.batch.Cols[len(t.Columns)]
		mask.Int64 = append(mask.Int64, unsent)
	}
	t.batch.EndRow(weight)
}

const hintAnew = "what was computed with the table as it was cannot be kept: change the table's declaration and run the file under another --name, or delete the pipeline and create it again; both copy the tables anew"

// reshaped is told of a change of shape.
func (s *Source) reshaped(c *changelog.SchemaChange) error {
	rel := c.New
	if rel == nil || c.Old != nil && s.asked(c.Old) >= 0 {
		rel = c.Old // its name may have changed
	}
	i := s.asked(rel)
	if i < 0 {
		return nil
	}
	t := s.tables[i]
	for _, step := range c.Steps {
		switch step.Kind {
		case changelog.AddColumn:
			continue
		case changelog.DropColumn, changelog.RenameColumn, changelog.AlterType:
			at := t.Columns.Index(step.Column)
			if at < 0 || t.Metadata[at] != "" || step.Kind == changelog.AlterType && t.widened(c.Old, c.New, at) {
				continue
			}
		}
		e := errs.New(errs.SourceSchemaChange, "table %s changed where a query reads it: %s", rel, step)
		if step.Kind == changelog.RenameColumn {
			return e.WithHint("as long as no row has been written under the new name, renaming it back lets the pipeline go on; otherwise %s", hintAnew)
		}
		return e.WithHint("%s", hintAnew)
	}
	return nil
}

// widened tells whether the column of the table's c-th has another type that holds the values of the old one in the same
// form, and that the declared type takes. It is read as the new one from then on.
func (t *table) widened(old, now *changelog.Relation, c int) bool {
	column := func(rel *changelog.Relation) *pg.Column {
		if rel != nil {
			for i := range rel.Columns {
				if x := &rel.Columns[i]; x.Name == t.Columns[c].Name {
					return &pg.Column{Name: x.Name, Type: pg.Type{OID: x.TypeOID, Schema: x.TypeSchema, Name: x.TypeName}, Mod: x.TypeMod}
				}
			}
		}
		return nil
	}
	from, to := column(old), column(now)
	if from == nil || to == nil || !holds(from, to, t.Columns[c].Type.Kind == row.String) {
		return false
	}
	read, err := readerOf(to, t.Columns[c].Type)
	if err != nil {
		return false
	}
	t.read[c] = read
	return true
}

// asked is the number of a table that was asked for, -1 if it was not.
func (s *Source) asked(rel *changelog.Relation) int {
	if i, ok := s.byName[[2]string{rel.Schema, rel.Name}]; ok {
		return i
	}
	return -1
}
