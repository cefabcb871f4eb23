package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/pg"
)

// userTables lists the tables that a mirror of everything would take: roots of partitions, not their leaves.
func userTables(t testing.TB, d db) []string {
	t.Helper()
	var out []string
	for _, row := range d.query(t, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
			AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '_weir') ORDER BY 1, 2`) {
		out = append(out, pg.Qualified(row[0], row[1]))
	}
	return out
}

func columnsOf(t testing.TB, d db, table string) []string {
	t.Helper()
	var out []string
	for _, row := range d.query(t, "SELECT attname FROM pg_attribute WHERE attrelid = "+pg.Literal(table)+"::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum") {
		out = append(out, row[0])
	}
	return out
}

// checksum is a digest of a table's rows as text, whatever their order and that of its columns.
func checksum(t testing.TB, d db, table string, columns []string) string {
	t.Helper()
	rows := d.query(t, fmt.Sprintf("SELECT count(*), coalesce(md5(string_agg(h, '' ORDER BY h)), '') FROM (SELECT md5(ROW(%s)::text) AS h FROM %s) s",
		pg.Idents(columns), table))
	return rows[0][0] + " rows " + rows[0][1]
}

// requireEqual compares every table of the source with its namesake at the target, and the sets of tables.
func requireEqual(t testing.TB, src, dst db) {
	t.Helper()
	a := userTables(t, src)
	var b []string
	// A dropped table writes nothing to the log that a position could be compared with: the drop is noticed by a look at
	// the catalog.
	eventually(t, 20*time.Second, "the target has the source's tables", func() (bool, string) {
		b = userTables(t, dst)
		return slices.Equal(a, b), fmt.Sprintf("source %v\ntarget %v", a, b)
	})
	for _, table := range a {
		if slices.Contains(b, table) {
			requireTableEqual(t, src, dst, table, table)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

func requireTableEqual(t testing.TB, src, dst db, table, target string) {
	t.Helper()
	cols, theirs := columnsOf(t, src, table), columnsOf(t, dst, target)
	x, y := slices.Clone(cols), slices.Clone(theirs)
	slices.Sort(x)
	slices.Sort(y)
	if !slices.Equal(x, y) {
		t.Errorf("table %s: source has the columns %v, target %v", table, cols, theirs)
		return
	}
	want, got := checksum(t, src, table, cols), checksum(t, dst, target, cols)
	if want == got {
		return
	}
	t.Errorf("table %s differs: source %s, target %s\n%s", table, want, got, differences(t, src, dst, table, target, cols))
}

// differences shows a few rows that only one side has.
func differences(t testing.TB, src, dst db, table, target string, cols []string) string {
	t.Helper()
	count := func(d db, table string) map[string]int {
		rows := map[string]int{}
		for _, r := range d.query(t, fmt.Sprintf("SELECT md5(ROW(%[1]s)::text) || ' ' || left(ROW(%[1]s)::text, 200) FROM %[2]s", pg.Idents(cols), table)) {
			rows[r[0]]++
		}
		return rows
	}
	a, b := count(src, table), count(dst, target)
	var out []string
	for row, n := range a {
		if b[row] != n {
			out = append(out, fmt.Sprintf("  source %d times, target %d: %s", n, b[row], row[33:]))
		}
	}
	for row, n := range b {
		if a[row] == 0 {
			out = append(out, fmt.Sprintf("  source 0 times, target %d: %s", n, row[33:]))
		}
	}
	slices.Sort(out)
	if len(out) > 12 {
		out = append(out[:12], fmt.Sprintf("  ... and %d more", len(out)-12))
	}
	return strings.Join(out, "\n")
}

// requireConsistent checks what must hold at every moment between slot and ledger: the slot never passes what the
// target has durably stored.
func requireConsistent(t testing.TB, m *mirror) {
	t.Helper()
	// The slot is read first: the stored position only grows, so a slot behind it then is behind it for sure.
	rows := m.src.query(t, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()")
	if len(rows) != 1 {
		t.Fatalf("%d slots in the source, want one", len(rows))
	}
	lanes := 1
	for _, arg := range m.args {
		if n, ok := strings.CutPrefix(arg, "sink.lanes="); ok {
			lanes, _ = strconv.Atoi(n)
		}
	}
	stored := m.dst.query(t, `SELECT convert_from(value, 'UTF8') FROM "_weir"."state" WHERE key = 'position' ORDER BY convert_from(value, 'UTF8')::pg_lsn`)
	if len(stored) != lanes {
		t.Fatalf("%d stored positions, want %d", len(stored), lanes)
	}
	confirmed, err := pg.ParseLSN(rows[0][0])
	if err != nil {
		t.Fatal(err)
	}
	position, err := pg.ParseLSN(stored[0][0])
	if err != nil {
		t.Fatal(err)
	}
	if confirmed > position {
		t.Fatalf("the slot was confirmed to %s, past the stored position %s", confirmed, position)
	}
	ledger := m.dst.query(t, `SELECT count(*), min(fence) > 0, min(checkpoint) > 0 FROM "_weir"."ledger"`)
	if fmt.Sprint(ledger[0]) != fmt.Sprintf("[%d t t]", lanes) {
		t.Fatalf("ledger: %v, want %d rows with a fence and a checkpoint", ledger[0], lanes)
	}
}
