package conform

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
)

// mirror applies what a Source sends, one change after another, and complains about whatever a database would refuse.
type mirror struct {
	tables map[string]Table
	rows   map[string]map[string]Row // by table, by key; a table without key by a running number
	open   map[uint32][]openChange
	next   int
}

type openChange struct {
	sub uint32
	ch  Change
}

func newMirror(tables ...Table) *mirror {
	m := &mirror{tables: map[string]Table{}, rows: map[string]map[string]Row{}, open: map[uint32][]openChange{}}
	for _, t := range tables {
		m.tables[t.Name] = t
		m.rows[t.Name] = map[string]Row{}
	}
	return m
}

func (m *mirror) all(table string) []Row {
	return slices.Collect(maps.Values(m.rows[table]))
}

func (m *mirror) changes(rows *changelog.Rows) []Change {
	var out []Change
	for i := range rows.Entries {
		e := &rows.Entries[i]
		rel := rows.Relation(e)
		t, ok := m.tables[rel.Name]
		if ok {
			out = append(out, Change{Table: t, Op: e.Op, Old: Decode(rel, rows.Old(e)), New: Decode(rel, rows.New(e))})
		}
	}
	return out
}

// take applies a message. Rows of open transactions wait for their commit.
func (m *mirror) take(msg dataflow.Message) error {
	defer msg.Rows.Release()
	switch msg.Kind {
	case dataflow.KindOpenRows:
		for _, ch := range m.changes(msg.Rows) {
			m.open[msg.Tx] = append(m.open[msg.Tx], openChange{msg.Sub, ch})
		}
		return nil
	case dataflow.KindOpenAbort:
		if msg.Sub == msg.Tx {
			delete(m.open, msg.Tx)
			return nil
		}
		// What came behind the subtransaction's first row was inside it: blocks of a transaction come in order.
		for i, c := range m.open[msg.Tx] {
			if c.sub == msg.Sub {
				m.open[msg.Tx] = m.open[msg.Tx][:i]
				break
			}
		}
		return nil
	case dataflow.KindOpenCommit:
		for _, c := range m.open[msg.Tx] {
			if err := m.apply(c.ch); err != nil {
				return err
			}
		}
		delete(m.open, msg.Tx)
		return nil
	case dataflow.KindTruncate:
		for _, rel := range msg.Truncate.Relations {
			clear(m.rows[rel.Name])
		}
		return nil
	}
	if msg.Rows == nil {
		return nil
	}
	for _, ch := range m.changes(msg.Rows) {
		if err := m.apply(ch); err != nil {
			return err
		}
	}
	return nil
}

func (m *mirror) apply(c Change) error {
	rows, key := m.rows[c.Table.Name], c.Table.KeyColumns()
	if len(key) == 0 {
		return m.applyKeyless(c, rows)
	}
	switch c.Op {
	case changelog.Insert:
		if old := rows[c.New.Key(key)]; old != nil {
			return fmt.Errorf("table %s: %s is inserted, and %s is there", c.Table.Name, c.New, old)
		}
		rows[c.New.Key(key)] = c.New
	case changelog.Delete:
		if rows[c.Old.Key(key)] == nil {
			return fmt.Errorf("table %s: %s is deleted, and is not there", c.Table.Name, c.Old)
		}
		delete(rows, c.Old.Key(key))
	case changelog.Update:
		was := c.New
		if c.Old != nil {
			was = c.Old
		}
		old := rows[was.Key(key)]
		if old == nil {
			return fmt.Errorf("table %s: %s is updated to %s, and is not there", c.Table.Name, was, c.New)
		}
		row := slices.Clone(c.New)
		for i, v := range row {
			if v == Unsent {
				row[i] = old[i]
			}
		}
		delete(rows, was.Key(key))
		rows[row.Key(key)] = row
	}
	return nil
}

func (m *mirror) applyKeyless(c Change, rows map[string]Row) error {
	if c.Op != changelog.Insert {
		found := ""
		for k, r := range rows {
			if slices.Equal(r, c.Old) {
				found = k
			}
		}
		if found == "" {
			return fmt.Errorf("table %s: no row is %s", c.Table.Name, c.Old)
		}
		delete(rows, found)
	}
	if c.Op != changelog.Delete {
		m.next++
		rows[fmt.Sprint(m.next)] = c.New
	}
	return nil
}

// load takes a range's whole stream.
func (m *mirror) load(table string, format string, columns []string, data []byte) (int64, error) {
	t := m.tables[table]
	var rows []Row
	var err error
	switch format {
	case "pgcopy-text":
		rows, err = ParseCopyText(data)
	case "pgcopy-binary":
		rows, err = parseCopyBinary(t, columns, data)
	default:
		err = fmt.Errorf("unknown format %q", format)
	}
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		if len(columns) != len(t.Columns) {
			return 0, fmt.Errorf("table %s: columns %v", table, columns)
		}
		if err := m.apply(Change{Table: t, Op: changelog.Insert, New: r}); err != nil {
			return 0, err
		}
	}
	return int64(len(rows)), nil
}

// ParseCopyText reads rows in the text format of COPY.
func ParseCopyText(data []byte) ([]Row, error) {
	var rows []Row
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, 1<<20)
	unescape := strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n")
	for in.Scan() {
		var row Row
		for _, v := range strings.Split(in.Text(), "\t") {
			if v == `\N` {
				row = append(row, Null)
				continue
			}
			row = append(row, unescape.Replace(v))
		}
		rows = append(rows, row)
	}
	return rows, in.Err()
}

func parseCopyBinary(t Table, columns []string, data []byte) ([]Row, error) {
	const head = 11 + 4 + 4
	if len(data) < head {
		return nil, fmt.Errorf("a binary copy of %d bytes", len(data))
	}
	data = data[head+int(binary.BigEndian.Uint32(data[15:])):]
	rel := t.Relation(1)
	var rows []Row
	for {
		if len(data) < 2 {
			return nil, fmt.Errorf("a binary copy without end")
		}
		n := int16(binary.BigEndian.Uint16(data))
		data = data[2:]
		if n == -1 {
			return rows, nil
		}
		if int(n) != len(columns) {
			return nil, fmt.Errorf("a row of %d columns", n)
		}
		var row Row
		for i := range columns {
			size := int32(binary.BigEndian.Uint32(data))
			data = data[4:]
			if size < 0 {
				row = append(row, Null)
				continue
			}
			row = append(row, binaryText(rel.Columns[i].TypeOID, data[:size]))
			data = data[size:]
		}
		rows = append(rows, row)
	}
}
