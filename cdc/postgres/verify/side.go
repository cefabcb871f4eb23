package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/pg"
)

// side is a table on one server, as the statements there see it.
type side struct {
	table    *pg.Table
	from     string   // for FROM
	where    string   // which rows count, "" all
	names    []string // of the columns compared
	columns  []string // their texts
	key      []int    // which of them are the key; nil: the whole row is
	keyTypes []string
	equals   []string // the operators that compare them
	utf8     bool     // of both servers; else text is hashed in UTF-8 whatever the server keeps it in
}

// inner selects the texts of all columns as v0, v1, …, once: OFFSET 0 keeps the planner from computing them at each
// use. Conditions over t are inside it, so that indexes serve.
func (s *side) inner(extra, join, cond string) string {
	var b strings.Builder
	b.WriteString("(SELECT ")
	for i, c := range s.columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s AS v%d", c, i)
	}
	if len(s.columns) == 0 {
		b.WriteString("1 AS none")
	}
	b.WriteString(extra + " FROM ")
	rows := "(SELECT * FROM " + s.from
	if s.where != "" {
		rows += " WHERE (" + s.where + "\n)"
	}
	b.WriteString(join + rows + ") AS t")
	if cond != "" {
		b.WriteString(" " + cond)
	}
	b.WriteString(" OFFSET 0) AS i")
	return b.String()
}

// frame joins texts so that no two lists give one string: the lengths first, N for NULL, then the texts.
func frame(values []string) string {
	if len(values) == 0 {
		return "''"
	}
	lengths := make([]string, len(values))
	for i, v := range values {
		lengths[i] = "length(" + v + ")"
	}
	return "array_to_string(ARRAY[" + strings.Join(lengths, ", ") + "], ',', 'N') || ':' || array_to_string(ARRAY[" + strings.Join(values, ", ") + "], '')"
}

func (s *side) md5(text string) string {
	if s.utf8 {
		return "md5(" + text + ")"
	}
	return "md5(convert_to(" + text + ", 'UTF8'))"
}

func (s *side) values(of []int) []string {
	out := make([]string, len(of))
	for i, n := range of {
		out[i] = "v" + strconv.Itoa(n)
	}
	return out
}

func (s *side) row() string {
	all := make([]int, len(s.columns))
	for i := range all {
		all[i] = i
	}
	return s.md5(frame(s.values(all)))
}

// hash is a number by which rows are put into buckets: of the key's text, or without a key of the row's. Keys that are
// equal and written differently (1.0 and 1.00) land in two buckets, and both are then found to differ.
func (s *side) hash() string {
	if s.key == nil {
		return "('x' || substr(h, 17, 8))::bit(32)::int8"
	}
	return "('x' || substr(" + s.md5(frame(s.values(s.key))) + ", 1, 8))::bit(32)::int8"
}

// scope is the condition for a range.
func (s *side) scope(k task) string {
	var conds []string
	if k.after != nil {
		conds = append(conds, s.keyColumns()+" > "+s.keyLiteral(k.after))
	}
	if k.upTo != nil {
		conds = append(conds, s.keyColumns()+" <= "+s.keyLiteral(k.upTo))
	}
	if len(conds) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(conds, " AND ")
}

func (s *side) keyColumns() string {
	cols := make([]string, len(s.key))
	for i, n := range s.key {
		cols[i] = "t." + pg.Ident(s.names[n])
	}
	return "(" + strings.Join(cols, ", ") + ")"
}

func (s *side) keyLiteral(values []string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = pg.Literal(v) + "::" + s.keyTypes[i]
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// bound is the key of the row that ends the range of n rows after a key; nil when fewer are left.
func (s *side) bound(ctx context.Context, conn *pgx.Conn, after []string, n int) ([]string, error) {
	keys := make([]string, len(s.key))
	for i, k := range s.key {
		keys[i] = s.columnText(k)
	}
	rows := "(SELECT * FROM " + s.from
	if s.where != "" {
		rows += " WHERE (" + s.where + "\n)"
	}
	order := strings.TrimSuffix(strings.TrimPrefix(s.keyColumns(), "("), ")")
	var out []string
	err := conn.QueryRow(ctx, fmt.Sprintf("SELECT ARRAY[%s] FROM %s) AS t %s ORDER BY %s LIMIT 1 OFFSET %d",
		strings.Join(keys, ", "), rows, s.scope(task{after: after}), order, n-1)).Scan(&out)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return out, err
}

// columnText is a key column's own text, whatever form it is compared in.
func (s *side) columnText(n int) string { return "t." + pg.Ident(s.names[n]) + "::text" }

// total is what a bucket's rows add up to.
type total struct {
	rows int64
	sum  string
}

// totals sums up the rows of a range by bucket: hash % n, of those where hash % of is in only (nil: all).
func (s *side) totals(ctx context.Context, conn *pgx.Conn, k task, n, of int, only []int64) (map[int64]total, error) {
	bucket := "0::int8"
	if n > 1 {
		bucket = fmt.Sprintf("%s %% %d", s.hash(), n)
	}
	sql := "SELECT " + bucket + ", count(*), sum(('x' || substr(h, 1, 16))::bit(64)::int8)::text FROM (SELECT *, " + s.row() + " AS h FROM " +
		s.inner("", "", s.scope(k)) + " OFFSET 0) AS r" + s.inBuckets(of, only) + " GROUP BY 1"
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64]total{}
	for rows.Next() {
		var b int64
		var t total
		if err := rows.Scan(&b, &t.rows, &t.sum); err != nil {
			return nil, err
		}
		out[b] = t
	}
	return out, rows.Err()
}

func (s *side) inBuckets(of int, only []int64) string {
	if only == nil {
		return ""
	}
	list := make([]string, len(only))
	for i, b := range only {
		list[i] = strconv.FormatInt(b, 10)
	}
	return fmt.Sprintf(" WHERE %s %% %d IN (%s)", s.hash(), of, strings.Join(list, ", "))
}

// entry is one row: its key and a hash of it all. Without a key, the key is the hash and the value is how often.
type entry struct {
	key   []string
	value string
}

// fetch reads keys and hashes of the rows in some buckets.
func (s *side) fetch(ctx context.Context, conn *pgx.Conn, k task, of int, only []int64) (map[string]entry, error) {
	what, group := "ARRAY["+strings.Join(s.rawKey(), ", ")+"]::text[], h", ""
	extra := ""
	if s.key == nil {
		what, group = "ARRAY[h], count(*)::text", " GROUP BY h"
	} else {
		for i, n := range s.key {
			extra += fmt.Sprintf(", %s AS k%d", s.columnText(n), i)
		}
	}
	sql := "SELECT " + what + " FROM (SELECT *, " + s.row() + " AS h FROM " + s.inner(extra, "", s.scope(k)) + " OFFSET 0) AS r" +
		s.inBuckets(of, only) + group
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]entry{}
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.key, &e.value); err != nil {
			return nil, err
		}
		id := identity(e.key)
		if had, ok := out[id]; ok {
			e.value = join(had.value, e.value)
		}
		out[id] = e
	}
	return out, rows.Err()
}

func (s *side) rawKey() []string {
	out := make([]string, len(s.key))
	for i := range s.key {
		out[i] = "k" + strconv.Itoa(i)
	}
	return out
}

// identity is a list of texts as one.
func identity(key []string) string {
	var b strings.Builder
	for _, k := range key {
		fmt.Fprintf(&b, "%d:%s", len(k), k)
	}
	return b.String()
}

// join keeps hashes of several rows under one key, which a target without a unique index can have, in one order.
func join(a, b string) string {
	if a > b {
		a, b = b, a
	}
	return a + "+" + b
}

// look reads the hashes of the rows with the given keys, in their order; "" where there is none.
func (s *side) look(ctx context.Context, conn *pgx.Conn, keys [][]string) ([]string, error) {
	out := make([]string, len(keys))
	sql, args := s.lookSQL("h", keys)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		var h string
		if err := rows.Scan(&n, &h); err != nil {
			return nil, err
		}
		if out[n] != "" {
			h = join(out[n], h)
		}
		out[n] = h
	}
	return out, rows.Err()
}

// lookSQL finds rows by key. The server compares keys, by its own idea of equality.
func (s *side) lookSQL(what string, keys [][]string) (string, []any) {
	if s.key == nil {
		list := make([]string, len(keys))
		for i, k := range keys {
			list[i] = k[0]
		}
		if what == "h" {
			what = "count(*)::text"
		}
		return "SELECT (array_position($1::text[], h) - 1)::int, " + what + " FROM (SELECT *, " + s.row() + " AS h FROM " + s.inner("", "", "") +
			" OFFSET 0) AS r WHERE h = ANY ($1::text[]) GROUP BY h", []any{list}
	}
	args := make([]any, len(s.key))
	var names, arrays, conds []string
	for i, n := range s.key {
		list := make([]string, len(keys))
		for j, k := range keys {
			list[j] = k[i]
		}
		args[i] = list
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		names = append(names, fmt.Sprintf("k%d", i))
		conds = append(conds, fmt.Sprintf("t.%s %s u.k%d::%s", pg.Ident(s.names[n]), s.equals[i], i, s.keyTypes[i]))
	}
	join := "unnest(" + strings.Join(arrays, ", ") + ") WITH ORDINALITY AS u(" + strings.Join(names, ", ") + ", n) JOIN "
	return "SELECT (n - 1)::int, " + what + " FROM (SELECT *, " + s.row() + " AS h FROM " +
		s.inner(", u.n", join, "ON "+strings.Join(conds, " AND ")) + " OFFSET 0) AS r", args
}

// maxValue is how many characters of a value are reported.
const maxValue = 1000

// details reads the texts of the rows with the given keys; nil where there is none.
func (s *side) details(ctx context.Context, conn *pgx.Conn, keys [][]string) ([][]*string, []int64, error) {
	cut := make([]string, len(s.columns))
	for i := range cut {
		v := "v" + strconv.Itoa(i)
		cut[i] = fmt.Sprintf("CASE WHEN length(%s) > %d THEN left(%s, %d) || '… (' || length(%s) || ' characters, md5 ' || md5(%s) || ')' ELSE %s END", v, maxValue, v, maxValue, v, v, v)
	}
	what, count := "ARRAY["+strings.Join(cut, ", ")+"]::text[]", "1::int8"
	if s.key == nil {
		for i := range cut {
			cut[i] = "min(" + cut[i] + ")" // rows of one hash are one row
		}
		what, count = "ARRAY["+strings.Join(cut, ", ")+"]::text[]", "count(*)"
	}
	sql, args := s.lookSQL(count+", "+what, keys)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	out, counts := make([][]*string, len(keys)), make([]int64, len(keys))
	for rows.Next() {
		var n int
		var c int64
		var values []*string
		if err := rows.Scan(&n, &c, &values); err != nil {
			return nil, nil, err
		}
		out[n] = values
		counts[n] += c
	}
	return out, counts, rows.Err()
}
