package postgres

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/pg"
)

// applier turns the changes of an epoch into the messages of one target transaction.
//
// Changes are collected for each table and written set-wise: deletes, then updates, then inserts, one statement each.
// When more is held than the limit, what is held is sent into the open transaction and collecting goes on, so a
// transaction of any size passes in bounded memory and still commits at once.
type applier struct {
	w     *wire
	limit int // bytes held before they are sent

	tables []*table // with something buffered, in order of first use
	held   []*changelog.Rows
	bytes  int
	open   bool // BEGIN was sent
	named  int  // statements prepared so far
	arr    arrays
	groups []updateGroup
	mask   []byte
}

// updateGroup is the updates whose sources left out the same columns.
type updateGroup struct {
	mask string
	set  []int
	rows []int
}

func (a *applier) begin() {
	if !a.open {
		a.open = true
		at := a.w.bindStart("begin", 0, 0)
		a.w.bindEnd(at)
		a.w.execute(expectation{})
	}
}

// rows buffers a batch. resolve gives the table of a relation.
func (a *applier) rows(batch *changelog.Rows, resolve func(*changelog.Relation) (*table, error)) error {
	a.held = append(a.held, batch)
	a.bytes += batch.Bytes()
	var last *changelog.Relation
	var t *table
	for i := range batch.Entries {
		e := &batch.Entries[i]
		if rel := batch.Relations[e.Rel]; rel != last {
			var err error
			if t, err = resolve(rel); err != nil {
				return err
			}
			last = rel
			if t != nil && !t.known {
				t.known = true
				a.tables = append(a.tables, t)
			}
		}
		if t == nil {
			continue // a relation that is not mirrored
		}
		if err := a.change(t, batch, e); err != nil {
			return err
		}
	}
	if a.bytes >= a.limit {
		return a.flush()
	}
	return nil
}

func (a *applier) change(t *table, batch *changelog.Rows, e *changelog.Entry) error {
	if len(t.key) == 0 {
		return a.keyless(t, batch, e)
	}
	if len(t.all) > 0 {
		if e.Op != changelog.Insert {
			t.buf.tally(batch.Old(e), t.all, -1)
		}
		if e.Op != changelog.Delete {
			t.buf.tally(batch.New(e), t.all, +1)
		}
		return nil
	}
	switch e.Op {
	case changelog.Insert:
		t.buf.insert(batch.New(e), t.key)
	case changelog.Delete:
		t.buf.remove(batch.Old(e), t.key)
	case changelog.Update:
		img := batch.New(e)
		if e.OldEnd == e.Old || sameKey(batch.Old(e), img, t.key) {
			t.buf.update(img, t.key)
			return nil
		}
		return a.moved(t, batch.Old(e), img)
	}
	return nil
}

// moved is an update that changed the key: the old row goes and a new one comes. Values that the source left out are
// taken from the row as it is pending; when only the target knows them, what is pending is written first and then the
// row is renamed in place, since delete and insert would lose them.
func (a *applier) moved(t *table, old, img changelog.Image) error {
	if img.HasUnsent() {
		p := t.buf.peek(old, t.key)
		if p == nil || p.op == changelog.Delete || p.op == 0 || p.img.HasUnsent() {
			if err := a.apply(t); err != nil {
				return err
			}
			return a.rename(t, old, img)
		}
		at := len(t.buf.merged)
		t.buf.merged = changelog.AppendMerged(t.buf.merged, img, p.img)
		img = changelog.Image(t.buf.merged[at:len(t.buf.merged):len(t.buf.merged)])
	}
	t.buf.remove(old, t.key)
	t.buf.insert(img, t.key)
	return nil
}

// rename updates one row in place, key included.
func (a *applier) rename(t *table, old, img changelog.Image) error {
	a.begin()
	var set []int
	it := img.Iter()
	for c := range t.cols {
		kind, _ := it.Next()
		if t.cols[c].name != "" && kind != changelog.ValueUnsent {
			set = append(set, c)
		}
	}
	// Parameters are numbered: first the old key, then what is set. Both may name a column, so the names differ.
	var assign, conds, args, names []string
	n := 0
	param := func(c int, name string) {
		n++
		args = append(args, fmt.Sprintf("$%d::%s[]", n, t.cols[c].elemName))
		names = append(names, name)
	}
	for _, k := range t.key {
		name := fmt.Sprintf("k%d", k)
		param(k, name)
		conds = append(conds, "t."+t.cols[k].name+" "+t.cols[k].equals+" "+castValue(&t.cols[k], name))
	}
	for _, c := range set {
		name := fmt.Sprintf("c%d", c)
		param(c, name)
		assign = append(assign, t.cols[c].name+" = "+castValue(&t.cols[c], name))
	}
	sql := "UPDATE " + t.qualified() + " AS t SET " + strings.Join(assign, ", ") + " FROM unnest(" + strings.Join(args, ", ") +
		") AS v(" + strings.Join(names, ", ") + ") WHERE " + strings.Join(conds, " AND ")
	stmt := a.prepare(t, sql)
	at := a.w.bindStart(stmt, n, 1)
	one := func(img changelog.Image, cols []int) {
		for _, c := range cols {
			kind, raw := column1(img, c)
			null := kind == changelog.ValueNull
			size := 20 + len(raw)
			if null {
				size = 24
			}
			a.w.uint32(size)
			a.w.uint32(1)
			if null {
				a.w.uint32(1)
			} else {
				a.w.uint32(0)
			}
			a.w.uint32(int(t.cols[c].elem))
			a.w.uint32(1)
			a.w.uint32(1)
			if null {
				a.w.uint32(-1)
			} else {
				a.w.out = append(a.w.out, raw...)
			}
		}
	}
	one(old, t.key)
	one(img, set)
	a.w.bindEnd(at)
	a.w.execute(expectation{count: t.count, rows: 1, op: opUpdate, loose: t.rel.Recopied})
	return nil
}

func castValue(c *column, name string) string {
	if c.plain {
		return "v." + name
	}
	return "v." + name + "::" + c.typ
}

func column1(img changelog.Image, c int) (byte, []byte) {
	it := img.Iter()
	for i := 0; ; i++ {
		kind, raw := it.Next()
		if kind == 0 || i == c {
			return kind, raw
		}
	}
}

func sameKey(old, img changelog.Image, key []int) bool {
	a, b := old.Iter(), img.Iter()
	next := 0
	for col := 0; next < len(key); col++ {
		ka, ra := a.Next()
		kb, rb := b.Next()
		if ka == 0 || kb == 0 {
			return true
		}
		isKey := false
		for _, k := range key {
			if k == col {
				isKey = true
			}
		}
		if !isKey {
			continue
		}
		next++
		// An unsent key column is stored out of line and did not change.
		if kb == changelog.ValueUnsent {
			continue
		}
		if ka != kb || string(ra) != string(rb) {
			return false
		}
	}
	return true
}

// flush writes everything buffered into the open transaction and lets go of the batches.
func (a *applier) flush() error {
	for _, t := range a.tables {
		if err := a.apply(t); err != nil {
			return err
		}
		t.known = false
	}
	clear(a.tables)
	a.tables = a.tables[:0]
	a.release()
	return a.w.flush()
}

// discard drops what is buffered and not sent.
func (a *applier) discard() {
	for _, t := range a.tables {
		t.buf.reset()
		t.known = false
	}
	clear(a.tables)
	a.tables = a.tables[:0]
	a.release()
}

func (a *applier) release() {
	for _, b := range a.held {
		b.Release()
	}
	clear(a.held)
	a.held = a.held[:0]
	a.bytes = 0
}

// apply writes what is pending for one table.
func (a *applier) apply(t *table) error {
	b := &t.buf
	defer b.reset()
	if b.live == 0 {
		return nil
	}
	a.begin()
	if !b.keyed && t.stored == "" {
		return a.copyRows(t, len(b.rows), func(i int) changelog.Image { return b.rows[i].img })
	}
	a.groups = a.groups[:0]
	inserts := 0
	deletes := 0
	for i := range b.rows {
		p := &b.rows[i]
		switch p.op {
		case changelog.Insert:
			inserts++
		case changelog.Delete:
			deletes++
		case changelog.Update:
			g := a.group(t, p.img)
			g.rows = append(g.rows, i)
		}
	}
	of := func(op changelog.Op) func(yield func(changelog.Image) error) error {
		return func(yield func(changelog.Image) error) error {
			for i := range b.rows {
				if b.rows[i].op == op {
					if err := yield(b.rows[i].img); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	if deletes > 0 {
		if err := a.each(t, t.deleteSQL(), t.key, opDelete, of(changelog.Delete)); err != nil {
			return err
		}
	}
	if err := a.updates(t); err != nil {
		return err
	}
	if inserts == 0 {
		return nil
	}
	if t.stored != "" {
		cols := t.written()
		return a.each(t, t.upsertSQL(cols), cols, opInsert, of(changelog.Insert))
	}
	next := 0
	return a.copyRows(t, inserts, func(int) changelog.Image {
		for b.rows[next].op != changelog.Insert {
			next++
		}
		next++
		return b.rows[next-1].img
	})
}

// updates writes the groups of updates. A table whose unique indexes refused their order before gets them the careful
// way: the touched rows are moved to a table without indexes, updated there, and put back, so no value is in two rows
// at any moment.
func (a *applier) updates(t *table) error {
	if len(a.groups) == 0 {
		return nil
	}
	into := t.qualified()
	hold := ""
	if t.careful && t.uniques {
		hold = `"pg_temp"."weir_hold"`
		a.w.statement("CREATE TEMP TABLE weir_hold ON COMMIT DROP AS SELECT "+t.columnList()+" FROM "+t.qualified()+" WITH NO DATA", expectation{})
		for gi := range a.groups {
			g := &a.groups[gi]
			rows := func(yield func(changelog.Image) error) error {
				for _, i := range g.rows {
					if err := yield(t.buf.rows[i].img); err != nil {
						return err
					}
				}
				return nil
			}
			take := "WITH gone AS (DELETE FROM " + t.qualified() + " AS t USING " + t.unnest(t.key, 1) + " WHERE " + t.matchKey("t") +
				" RETURNING t.*) INSERT INTO " + hold + " SELECT " + t.columnList() + " FROM gone"
			if err := a.each(t, take, t.key, opOther, rows); err != nil {
				return err
			}
		}
		into = hold
	}
	for gi := range a.groups {
		g := &a.groups[gi]
		if len(g.set) == 0 {
			continue // nothing but the key was sent, and that did not change
		}
		cols := append(append([]int{}, t.key...), g.set...)
		err := a.each(t, t.updateSQL(into, g.set), cols, opUpdate, func(yield func(changelog.Image) error) error {
			for _, i := range g.rows {
				if err := yield(t.buf.rows[i].img); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if hold != "" {
		a.w.statement("INSERT INTO "+t.qualified()+" ("+t.columnList()+") OVERRIDING SYSTEM VALUE SELECT * FROM "+hold, expectation{})
		a.w.statement("DROP TABLE "+hold, expectation{})
	}
	return nil
}

// group finds the updates with img's unsent columns.
func (a *applier) group(t *table, img changelog.Image) *updateGroup {
	a.mask = a.mask[:0]
	it := img.Iter()
	for c := range t.cols {
		if kind, _ := it.Next(); kind == changelog.ValueUnsent {
			a.mask = append(a.mask, byte(c), byte(c>>8))
		}
	}
	for i := range a.groups {
		if a.groups[i].mask == string(a.mask) {
			return &a.groups[i]
		}
	}
	g := updateGroup{mask: string(a.mask)}
	it = img.Iter()
	for c := range t.cols {
		kind, _ := it.Next()
		if t.cols[c].name != "" && kind != changelog.ValueUnsent && !t.isKey(c) {
			g.set = append(g.set, c)
		}
	}
	a.groups = append(a.groups, g)
	return &a.groups[len(a.groups)-1]
}

// maxStatementRows and maxStatementBytes bound one statement's parameters. Past some thousand rows nothing is gained;
// a parameter may not pass 1 GB.
const (
	maxStatementRows  = 8192
	maxStatementBytes = 4 << 20
)

// each runs a prepared set-wise statement over rows, in as many runs as their number asks for.
func (a *applier) each(t *table, sql string, cols []int, op statementOp, rows func(yield func(changelog.Image) error) error) error {
	stmt := a.prepare(t, sql)
	a.arr.start(len(t.cols), cols)
	run := func() error {
		if a.arr.rows == 0 {
			return nil
		}
		n := a.arr.rows
		a.arr.bind(a.w, stmt, t.cols)
		a.w.execute(expectation{count: t.count, rows: int64(n), op: op, loose: t.rel.Recopied})
		a.arr.start(len(t.cols), cols)
		return a.sendLarge()
	}
	size := 0
	err := rows(func(img changelog.Image) error {
		a.arr.add(img)
		size += len(img)
		if a.arr.rows >= maxStatementRows || size >= maxStatementBytes {
			size = 0
			return run()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return run()
}

// sendLarge sends what is encoded once it is worth a system call, so that encoding and the server's work overlap.
func (a *applier) sendLarge() error {
	if len(a.w.out) < 256<<10 {
		return nil
	}
	return a.w.flush()
}

// hugeRow is the size from which a row is not held once more in its encoded form.
const hugeRow = 1 << 20

// copyHuge is appendCopyBinary, or appendCopyText, of a row that is sent in pieces.
func (a *applier) copyHuge(t *table, img changelog.Image, written int) error {
	binary := t.copyBinary()
	if binary {
		a.w.uint16(written)
	}
	it := img.Iter()
	first := true
	for i := range t.cols {
		kind, raw := it.Next()
		if t.cols[i].name == "" {
			continue
		}
		if !binary && !first {
			a.w.out = append(a.w.out, '\t')
		}
		first = false
		there := kind == changelog.ValueText || kind == changelog.ValueBinary
		switch {
		case !there && binary:
			a.w.uint32(-1)
			continue
		case !there:
			a.w.out = append(a.w.out, '\\', 'N')
			continue
		case !binary:
			raw = raw[4:]
		}
		for piece := range slices.Chunk(raw, 128<<10) {
			if binary {
				a.w.out = append(a.w.out, piece...)
			} else {
				a.w.out = appendEscaped(a.w.out, piece)
			}
			if len(a.w.out) >= 256<<10 {
				a.w.end(a.w.copyAt)
				if err := a.w.flush(); err != nil {
					return err
				}
				a.w.copyStart()
			}
		}
	}
	if !binary {
		a.w.out = append(a.w.out, '\n')
	}
	return nil
}

// copyRows inserts n rows by COPY.
func (a *applier) copyRows(t *table, n int, image func(int) changelog.Image) error {
	if t.converted {
		cols := t.written()
		return a.each(t, t.insertSQL(cols), cols, opInsert, func(yield func(changelog.Image) error) error {
			for i := range n {
				if err := yield(image(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	stmt := a.prepare(t, t.copySQL())
	a.w.bindEnd(a.w.bindStart(stmt, 0, 0))
	a.w.execute(expectation{count: t.count, rows: int64(n), op: opInsert, loose: t.rel.Recopied})
	a.w.copyStart()
	binary := t.copyBinary()
	written := len(t.written())
	if binary {
		a.w.out = append(a.w.out, copyBinaryHeader...)
	}
	for i := range n {
		if img := image(i); len(img) > hugeRow {
			if err := a.copyHuge(t, img, written); err != nil {
				return err
			}
		} else if binary {
			a.w.out = appendCopyBinary(a.w.out, img, t.cols, written)
		} else {
			a.w.out = appendCopyText(a.w.out, img, t.cols)
		}
		if len(a.w.out)-a.w.copyAt >= 64<<10 {
			a.w.end(a.w.copyAt)
			if err := a.w.flush(); err != nil {
				return err
			}
			a.w.copyStart()
		}
	}
	if binary {
		a.w.out = append(a.w.out, 0xff, 0xff)
	}
	a.w.copyEnd()
	return nil
}

// prepare names a statement, preparing it the first time. Plans are pinned by plan_cache_mode: measured, a plan chosen
// anew for a large array flips to a hash join over the whole table.
func (a *applier) prepare(t *table, sql string) string {
	if name, ok := t.stmts[sql]; ok {
		return name
	}
	a.named++
	name := fmt.Sprintf("w%d", a.named)
	t.stmts[sql] = name
	a.w.parse(name, sql)
	return name
}

// keyless applies a change to a table without a key, one by one and in order, except that inserts gather.
func (a *applier) keyless(t *table, batch *changelog.Rows, e *changelog.Entry) error {
	if e.Op == changelog.Insert {
		t.buf.insert(batch.New(e), nil)
		return nil
	}
	if err := a.apply(t); err != nil {
		return err
	}
	a.begin()
	old := batch.Old(e)
	var conds []string
	var values [][]byte
	it := old.Iter()
	for c := range t.cols {
		kind, raw := it.Next()
		if t.cols[c].name == "" {
			continue
		}
		switch kind {
		case changelog.ValueNull:
			conds = append(conds, "t."+t.cols[c].name+" IS NULL")
		case changelog.ValueText, changelog.ValueBinary:
			// Compared as the server prints them: json, xml and point have no equality of their own, and a cast to text
			// is something else for boolean, char(n) and inet.
			values = append(values, raw[4:])
			conds = append(conds, fmt.Sprintf("pg_catalog.format('%%s', t.%s) = %s", t.cols[c].name, t.cols[c].printed(len(values))))
		}
	}
	if len(conds) == 0 {
		conds = append(conds, "true")
	}
	find := "(SELECT t.ctid FROM " + t.qualified() + " AS t WHERE " + strings.Join(conds, " AND ") + " LIMIT 1)"
	sql, op := "DELETE FROM "+t.qualified()+" WHERE ctid = "+find, opDelete
	if e.Op == changelog.Update {
		op = opUpdate
		var assign []string
		it := batch.New(e).Iter()
		for c := range t.cols {
			kind, raw := it.Next()
			if t.cols[c].name == "" || kind == changelog.ValueUnsent {
				continue
			}
			if kind == changelog.ValueNull {
				assign = append(assign, t.cols[c].name+" = NULL")
				continue
			}
			values = append(values, raw[4:])
			assign = append(assign, fmt.Sprintf("%s = $%d::%s", t.cols[c].name, len(values), t.cols[c].cast()))
		}
		if len(assign) == 0 {
			return nil
		}
		sql = "UPDATE " + t.qualified() + " SET " + strings.Join(assign, ", ") + " WHERE ctid = " + find
	}
	a.w.parse("", sql)
	format := 0
	if t.rel.Binary {
		format = 1
	}
	at := a.w.bindStart("", len(values), format)
	for _, v := range values {
		a.w.bindValue(v)
	}
	a.w.bindEnd(at)
	a.w.execute(expectation{count: t.count, rows: 1, op: op, loose: t.rel.Recopied})
	return a.sendLarge()
}

// printed is a parameter of the column's wire type as the server prints the column's own values.
func (c *column) printed(param int) string {
	if c.elem == textOID {
		return fmt.Sprintf(`$%d::"pg_catalog"."text"`, param)
	}
	return fmt.Sprintf("pg_catalog.format('%%s', $%d::%s)", param, c.elemName)
}

// cast turns a parameter of the column's wire type into the column's type.
func (c *column) cast() string {
	if c.elem == textOID && !c.plain {
		return "\"pg_catalog\".\"text\"::" + c.typ
	}
	if !c.plain {
		return c.elemName + "::" + c.typ
	}
	return c.elemName
}

// truncate empties tables in one statement, after what is pending for them is dropped: it would be emptied anyway. A foreign
// key of yet another table would forbid it; at the source there is none, or none any more, and the rows are deleted.
func (a *applier) truncate(tables []*table, tr *changelog.Truncate) {
	a.begin()
	var names, regs, deletes []string
	for _, t := range tables {
		t.buf.reset()
		name := t.qualified()
		regs = append(regs, "to_regclass("+pg.Literal(name)+")")
		if t.spec.Kind != 'p' {
			name = "ONLY " + name
		}
		names, deletes = append(names, name), append(deletes, "DELETE FROM "+name)
	}
	if tr.ByDelete {
		for _, sql := range deletes {
			a.w.statement(sql, expectation{})
		}
		return
	}
	sql := "TRUNCATE " + strings.Join(names, ", ")
	if tr.RestartIdentity {
		sql += " RESTART IDENTITY"
	}
	list := strings.Join(regs, ", ")
	a.w.statement("DO $weir_truncate$ BEGIN IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid IN ("+list+") AND conrelid NOT IN ("+list+")) THEN "+
		strings.Join(deletes, "; ")+"; ELSE "+sql+"; END IF; END $weir_truncate$", expectation{})
}

// clearRange takes out the rows of a key range that a chunk replaces. With soft delete all of them are marked, and the
// chunk's own rows lose the mark again in the same transaction: what the source does not have any more is a deleted row
// like others. Those that are marked already keep the time of their delete.
func (a *applier) clearRange(t *table, key, after, through []string) {
	a.begin()
	sql := "DELETE FROM " + t.qualified()
	var conds []string
	if t.stored != "" {
		sql = "UPDATE " + t.qualified() + " SET " + pg.Ident(t.stored) + " = now()"
		conds = append(conds, pg.Ident(t.stored)+" IS NULL")
	}
	row := func(values []string) string {
		var lits []string
		for i, v := range values {
			lits = append(lits, pg.Literal(v)+"::"+t.typeOf(key[i]))
		}
		return "(" + strings.Join(lits, ", ") + ")"
	}
	var cols []string
	for _, k := range key {
		cols = append(cols, pg.Ident(k))
	}
	if after != nil {
		conds = append(conds, "("+strings.Join(cols, ", ")+") > "+row(after))
	}
	if through != nil {
		conds = append(conds, "("+strings.Join(cols, ", ")+") <= "+row(through))
	}
	if len(conds) > 0 {
		sql += " WHERE " + strings.Join(conds, " AND ")
	}
	a.w.statement(sql, expectation{})
}

func (t *table) typeOf(name string) string {
	for i := range t.cols {
		if t.rel.Columns[i].Name == name {
			return t.cols[i].typ
		}
	}
	return `"pg_catalog"."text"`
}
