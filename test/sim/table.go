package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/test/conform"
)

// database is tables with rows, changed by whole transactions. Both models and the checker's replay are made of it.
type database struct {
	tables map[string]*table
}

type table struct {
	def  conform.Table
	key  []int
	rows map[string]conform.Row
	next int // of a table without key, the number of its next row
}

// change is one statement's effect on a row, or the emptying of a table.
type change struct {
	table    string
	op       changelog.Op // 0: truncate
	old, new conform.Row
}

// clear empties a key range: what a chunk of a copy replaces.
type clearRange struct {
	table          string
	column         int // -1: everything
	after, through *int64
}

func (r clearRange) holds(row conform.Row) bool {
	if r.column < 0 {
		return true
	}
	v, err := strconv.ParseInt(row[r.column], 10, 64)
	return err == nil && (r.after == nil || v > *r.after) && (r.through == nil || v <= *r.through)
}

func newDatabase(defs ...conform.Table) *database {
	d := &database{tables: map[string]*table{}}
	for _, def := range defs {
		d.tables[def.Name] = &table{def: def, key: def.KeyColumns(), rows: map[string]conform.Row{}}
	}
	return d
}

func (d *database) clone() *database {
	out := &database{tables: map[string]*table{}}
	for name, t := range d.tables {
		c := *t
		c.rows = maps.Clone(t.rows)
		out.tables[name] = &c
	}
	return out
}

// undo takes back what a transaction did, newest first.
type undo struct {
	table *table
	key   string
	was   conform.Row // nil: there was none
}

func (d *database) rollback(log []undo) {
	for i := len(log) - 1; i >= 0; i-- {
		u := log[i]
		if u.was == nil {
			delete(u.table.rows, u.key)
		} else {
			u.table.rows[u.key] = u.was
		}
	}
}

func (t *table) set(log *[]undo, key string, row conform.Row) {
	*log = append(*log, undo{t, key, t.rows[key]})
	if row == nil {
		delete(t.rows, key)
	} else {
		t.rows[key] = row
	}
}

// apply makes one change and refuses what a database would refuse.
func (d *database) apply(c change, log *[]undo) error {
	t := d.tables[c.table]
	if t == nil {
		return fmt.Errorf("no table %s", c.table)
	}
	if c.op == 0 {
		for k := range maps.Clone(t.rows) {
			t.set(log, k, nil)
		}
		return nil
	}
	if len(t.key) == 0 {
		return t.keyless(c, log)
	}
	was := c.new
	if c.old != nil {
		was = c.old
	}
	switch c.op {
	case changelog.Insert:
		if old := t.rows[c.new.Key(t.key)]; old != nil {
			return fmt.Errorf("table %s: %s is inserted, and %s is there", c.table, c.new, old)
		}
		t.set(log, c.new.Key(t.key), c.new)
	case changelog.Delete:
		if t.rows[was.Key(t.key)] == nil {
			return fmt.Errorf("table %s: %s is deleted, and is not there", c.table, was)
		}
		t.set(log, was.Key(t.key), nil)
	case changelog.Update:
		old := t.rows[was.Key(t.key)]
		if old == nil {
			return fmt.Errorf("table %s: %s is updated to %s, and is not there", c.table, was, c.new)
		}
		row := slices.Clone(c.new)
		for i, v := range row {
			if v == conform.Unsent {
				row[i] = old[i]
			}
		}
		if k := row.Key(t.key); k != was.Key(t.key) {
			if there := t.rows[k]; there != nil {
				return fmt.Errorf("table %s: %s takes the key of %s", c.table, row, there)
			}
			t.set(log, was.Key(t.key), nil)
		}
		t.set(log, row.Key(t.key), row)
	}
	return nil
}

func (t *table) keyless(c change, log *[]undo) error {
	if c.op != changelog.Insert {
		found := ""
		for k, r := range t.rows {
			if slices.Equal(r, c.old) && (found == "" || k < found) {
				found = k
			}
		}
		if found == "" {
			return fmt.Errorf("table %s: no row is %s", t.def.Name, c.old)
		}
		t.set(log, found, nil)
	}
	if c.op != changelog.Delete {
		t.next++
		t.set(log, strconv.Itoa(t.next), c.new)
	}
	return nil
}

func (d *database) clear(r clearRange, log *[]undo) {
	t := d.tables[r.table]
	for k, row := range maps.Clone(t.rows) {
		if r.holds(row) {
			t.set(log, k, nil)
		}
	}
}

// unique checks the further unique indexes. Postgres checks them row by row; the models at a transaction's end, which
// is what the row order of a careful Target amounts to.
func (d *database) unique() error {
	for _, t := range d.tables {
		for _, u := range t.def.Unique {
			seen := map[string]bool{}
			var cols []int
			for i, c := range t.def.Columns {
				if slices.Contains(u, c.Name) {
					cols = append(cols, i)
				}
			}
			for _, r := range t.rows {
				k := r.Key(cols)
				if seen[k] {
					return errs.New(errs.TargetRejected, "table %s: %v is not unique", t.def.Name, u)
				}
				seen[k] = true
			}
		}
	}
	return nil
}

// differs names the first table and rows in which two databases differ; "" if they are equal.
func (d *database) differs(o *database) string {
	for _, name := range slices.Sorted(maps.Keys(d.tables)) {
		a, b := d.tables[name], o.tables[name]
		if len(a.key) > 0 {
			if len(a.rows) == len(b.rows) && maps.EqualFunc(a.rows, b.rows, slices.Equal[conform.Row]) {
				continue
			}
		}
		x, y := conform.Lines(slices.Collect(maps.Values(a.rows))), conform.Lines(slices.Collect(maps.Values(b.rows)))
		if !slices.Equal(x, y) {
			return fmt.Sprintf("table %s: %s", name, firstDifference(x, y))
		}
	}
	return ""
}

func firstDifference(have, want []string) string {
	count := map[string]int{}
	for _, r := range want {
		count[r]++
	}
	var extra, missing []string
	for _, r := range have {
		if count[r]--; count[r] < 0 {
			extra = append(extra, r)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(count)) {
		if count[r] > 0 {
			missing = append(missing, r)
		}
	}
	short := func(rows []string) string {
		if len(rows) > 4 {
			return strings.Join(rows[:4], " ") + fmt.Sprintf(" and %d more", len(rows)-4)
		}
		return strings.Join(rows, " ")
	}
	return fmt.Sprintf("too many [%s] missing [%s]", short(extra), short(missing))
}
