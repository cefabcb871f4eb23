package pgwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/plan"
)

// copying is a COPY table FROM STDIN.
type copying struct {
	table   string
	columns []string // nil: all
	format  string   // text, csv or binary
	delim   byte
	null    string
	header  bool
}

// prepareCopy understands COPY table [(columns)] FROM STDIN [[WITH] (options)], and the options of old without parentheses.
func (x *session) prepareCopy(text string) (*prepared, error) {
	bad := func(what string) error {
		return fail("42601", "syntax error in COPY: %s", what).withHint("COPY table (a, b) FROM STDIN WITH (FORMAT csv, HEADER)")
	}
	ws := copyWords(rest(text, "COPY"))
	c := &copying{format: "text"}
	next := func() string {
		if len(ws) == 0 {
			return ""
		}
		w := ws[0]
		ws = ws[1:]
		return w
	}
	is := func(w, word string) bool { return strings.EqualFold(w, word) }
	c.table = next()
	for len(ws) > 1 && ws[0] == "." {
		ws = ws[1:]
		c.table = next()
	}
	c.table = unquote(c.table)
	if len(ws) > 0 && ws[0] == "(" {
		next()
		for w := next(); w != ")"; w = next() {
			if w == "" {
				return nil, bad("the list of columns does not end")
			}
			if w != "," {
				c.columns = append(c.columns, unquote(w))
			}
		}
	}
	switch w := next(); {
	case is(w, "TO"):
		return nil, errs.New(errs.NotBuiltYet, "COPY TO is not built yet").WithHint("SELECT reads; psql writes its answer to a file: \\g file, or psql -c '..' --csv")
	case !is(w, "FROM"):
		return nil, bad("FROM is expected behind the table")
	}
	if !is(next(), "STDIN") {
		return nil, errs.New(errs.NotBuiltYet, "COPY FROM a file of the server is not built yet").WithHint("\\copy of psql, or COPY .. FROM STDIN, sends the client's file")
	}
	delim, null := "", "\x00"
	for len(ws) > 0 {
		w := next()
		value := func() string {
			if len(ws) > 0 && is(ws[0], "AS") {
				next()
			}
			return unquote(next())
		}
		switch strings.ToUpper(w) {
		case "WITH", "(", ")", ",":
		case "FORMAT":
			c.format = strings.ToLower(value())
		case "CSV", "BINARY":
			c.format = strings.ToLower(w)
		case "HEADER", "FREEZE":
			on := true
			if len(ws) > 0 && (is(ws[0], "true") || is(ws[0], "false") || is(ws[0], "on") || is(ws[0], "off") || ws[0] == "1" || ws[0] == "0") {
				v := next()
				on = is(v, "true") || is(v, "on") || v == "1"
			}
			c.header = c.header || on && is(w, "HEADER")
		case "DELIMITER":
			delim = value()
		case "NULL":
			null = value()
		case "ENCODING", "QUOTE":
			if v := value(); !is(v, "UTF8") && !is(v, "UTF-8") && v != `"` {
				return nil, errs.New(errs.NotBuiltYet, "%s %s of COPY is not built yet", strings.ToUpper(w), v)
			}
		default:
			return nil, bad("option " + w + " is not known")
		}
	}
	switch c.format {
	case "text":
		c.delim, c.null = '\t', `\N`
	case "csv":
		c.delim = ','
	case "binary":
	default:
		return nil, fail("22023", "COPY format %q not recognized", c.format)
	}
	if len(delim) == 1 {
		c.delim = delim[0]
	} else if delim != "" {
		return nil, fail("22023", "COPY delimiter must be a single one-byte character")
	}
	if null != "\x00" {
		c.null = null
	}
	return &prepared{text: text, copies: c}, nil
}

// copyWords takes the words, quoted names and strings, and symbols of a statement apart.
func copyWords(s string) []string {
	var out []string
	for len(s) > 0 {
		if n := skip(s); n > 0 {
			if !strings.HasPrefix(s, "--") && !strings.HasPrefix(s, "/*") {
				out = append(out, s[:n])
			}
			s = s[n:]
			continue
		}
		n := strings.IndexAny(s, " \t\r\n(),.;'\"")
		switch {
		case n < 0:
			n = len(s)
		case n == 0:
			n = 1
		}
		if w := strings.TrimSpace(s[:n]); w != "" && w != ";" {
			if strings.HasPrefix(w, "E") && n < len(s) && s[n] == '\'' { // E'\t'
				k := skip(s[n:])
				out = append(out, strings.ReplaceAll(s[n:n+k], `\t`, "\t"))
				n += k
			} else {
				out = append(out, w)
			}
		}
		s = s[n:]
	}
	return out
}

// copyIn takes the rows that the client sends.
func (x *session) copyIn(ctx context.Context, p *prepared) error {
	c := p.copies
	s := &served{relations: map[string]relation{}}
	x.relations(s)
	r, ok := s.relations[c.table]
	switch {
	case !ok:
		return fail("42P01", "relation %q does not exist", c.table)
	case len(r.twice) > 1:
		return inTwo(c.table, r.twice)
	case !r.view.Table:
		return fail("42809", "cannot copy to view %q", c.table)
	case x.tx == inBlock && x.readOnly:
		return fail("25006", "cannot execute COPY FROM in a read-only transaction")
	}
	v := r.view
	var cols []int
	for i := range v.Schema {
		if c.columns == nil {
			cols = append(cols, i)
		}
	}
	for _, name := range c.columns {
		i := slices.IndexFunc(v.Schema, func(f row.Field) bool { return strings.EqualFold(f.Name, name) })
		if at := v.Schema.Index(name); at >= 0 {
			i = at
		}
		if i < 0 {
			return fail("42703", "column %q of relation %q does not exist", name, c.table)
		}
		cols = append(cols, i)
	}
	x.flushTag()
	if x.writes == nil {
		if err := x.begin(ctx, v, true, false); err != nil {
			return err
		}
	} else if x.writes.Sequencer() != v.Tables {
		if err := x.writes.Alive(); err != nil {
			return err
		}
		return errs.New(errs.NotBuiltYet, "a transaction over tables of two pipelines is not built yet")
	}
	in := &copyInput{x: x, c: c, v: v, cols: cols, ctx: ctx, number: v.Tables.Table(v.Name)}
	for i, f := range v.Schema {
		f.Type.NotNull = false
		in.types = append(in.types, f.Type)
		if !slices.Contains(cols, i) {
			in.others = append(in.others, i)
		}
	}
	in.reset()
	answer := &pgproto3.CopyInResponse{ColumnFormatCodes: make([]uint16, len(cols))}
	if c.format == "binary" {
		answer.OverallFormat = 1
		for i := range answer.ColumnFormatCodes {
			answer.ColumnFormatCodes[i] = 1
		}
	}
	x.back.Send(answer)
	if err := x.back.Flush(); err != nil {
		return err
	}
	if err := in.receive(); err != nil {
		return err
	}
	x.again = nil
	x.held = &pgproto3.CommandComplete{CommandTag: fmt.Append(nil, "COPY ", in.total)}
	if x.tx == inBlock {
		x.flushTag()
	}
	return nil
}

// copyInput is what has come of a COPY.
type copyInput struct {
	x      *session
	ctx    context.Context
	c      *copying
	v      View
	number int
	cols   []int // of the table, in the order of the input
	others []int // that are not in the input
	types  []row.Type
	b      *row.Builder
	rest   []byte // of a row that has not come as a whole
	line   int
	total  int64
	ended  bool // by the end mark
	begun  bool // the header of the binary format was read
}

func (in *copyInput) reset() {
	in.b = row.NewBuilder(in.types)
	in.b.Reset()
}

func (in *copyInput) receive() error {
	for {
		m, err := in.x.back.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyData:
			in.rest = append(in.rest, m.Data...)
			if len(in.rest) > maxMessage {
				return fail("54000", "a row of COPY is longer than %d MiB", maxMessage>>20)
			}
			if err := in.rows(false); err != nil {
				return err
			}
		case *pgproto3.CopyDone:
			if err := in.rows(true); err != nil {
				return err
			}
			return in.flush()
		case *pgproto3.CopyFail:
			return fail("57014", "COPY from stdin failed: %s", m.Message)
		case *pgproto3.Flush, *pgproto3.Sync:
		default:
			return fail("08P01", "unexpected message %T during COPY from stdin", m)
		}
		if err := in.ctx.Err(); err != nil {
			return err
		}
	}
}

// rows takes the whole rows off the front of rest.
func (in *copyInput) rows(last bool) error {
	for !in.ended {
		n, fields, err := in.row(last)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		in.rest = in.rest[n:]
		if fields == nil {
			continue
		}
		if len(fields) != len(in.cols) {
			what := "missing data for columns"
			if len(fields) > len(in.cols) {
				what = "extra data after last expected column"
			}
			return fail("22P04", "%s: COPY %s, line %d has %d columns, %d are expected", what, in.c.table, in.line, len(fields), len(in.cols))
		}
		for k, f := range fields {
			col := in.cols[k]
			t := in.types[col]
			if (t.Kind == row.String || t.Kind == row.Bytes) && t.Precision > 0 && len(f) > t.Precision {
				t.Precision, t.Fixed = 0, false // it is not cut here, and refused where it is too long
			}
			ok := true
			switch {
			case f == nil:
				in.b.Cols[col].AppendNull(t.Layout())
			case in.c.format == "binary":
				ok = parseBinary(in.b.Cols[col], t, typeOf(t).oid, f, in.x.zone)
			default:
				ok = parseText(in.b.Cols[col], t, f, in.x.zone)
			}
			if !ok {
				return fail("22P02", "invalid input syntax for type %s: %q (COPY %s, line %d, column %s)", typeName(typeOf(t).oid, -1), f, in.c.table, in.line, in.v.Schema[col].Name)
			}
		}
		for _, col := range in.others {
			in.b.Cols[col].AppendNull(in.types[col].Layout())
		}
		in.b.EndRow(1)
		if in.b.Len == row.MaxBatch {
			if err := in.flush(); err != nil {
				return err
			}
		}
	}
	in.rest = append([]byte(nil), in.rest...)
	if last && len(in.rest) > 0 && !in.ended {
		return fail("22P04", "unexpected end of the data of COPY %s", in.c.table)
	}
	return nil
}

func (in *copyInput) flush() error {
	if in.b.Len == 0 {
		return nil
	}
	c := &changed{Change: &plan.Change{Kind: plan.Insert, Table: in.c.table}, view: in.v, number: in.number}
	n, err := in.x.insert(in.ctx, c, in.b.Seal(), 0, func(*row.Batch) error { return nil })
	in.total += n
	in.reset()
	return err
}

// row takes a row apart: how long it is, 0 if it has not come as a whole, and its fields, of which nil is NULL. A header
// has no fields.
func (in *copyInput) row(last bool) (int, [][]byte, error) {
	switch in.c.format {
	case "binary":
		return in.binaryRow()
	case "csv":
		return in.csvRow(last)
	}
	return in.textRow(last)
}

const copySignature = "PGCOPY\n\xff\r\n\x00"

func (in *copyInput) binaryRow() (int, [][]byte, error) {
	b := in.rest
	if !in.begun {
		head := len(copySignature) + 8
		if len(b) < head {
			return 0, nil, nil
		}
		if string(b[:len(copySignature)]) != copySignature {
			return 0, nil, fail("22P04", "COPY file signature not recognized")
		}
		more := binary.BigEndian.Uint32(b[head-4:])
		if more > maxMessage {
			return 0, nil, fail("22P04", "invalid COPY file header")
		}
		if len(b) < head+int(more) {
			return 0, nil, nil
		}
		in.begun = true
		return head + int(more), nil, nil
	}
	if len(b) < 2 {
		return 0, nil, nil
	}
	count := int16(binary.BigEndian.Uint16(b))
	if count == -1 {
		in.ended = true
		return 2, nil, nil
	}
	if count < 0 {
		return 0, nil, fail("22P04", "a row of COPY has %d fields", count)
	}
	at := 2
	fields := make([][]byte, 0, count)
	for range count {
		if len(b) < at+4 {
			return 0, nil, nil
		}
		n := int32(binary.BigEndian.Uint32(b[at:]))
		at += 4
		if n == -1 {
			fields = append(fields, nil)
			continue
		}
		if n < 0 || n > maxMessage {
			return 0, nil, fail("22P04", "a field of COPY has %d bytes", n)
		}
		if len(b) < at+int(n) {
			return 0, nil, nil
		}
		fields = append(fields, b[at:at+int(n):at+int(n)])
		at += int(n)
	}
	in.line++
	return at, fields, nil
}

func (in *copyInput) textRow(last bool) (int, [][]byte, error) {
	i := bytes.IndexByte(in.rest, '\n')
	n := i + 1
	if i < 0 {
		if !last || len(in.rest) == 0 {
			return 0, nil, nil
		}
		i, n = len(in.rest), len(in.rest)
	}
	line := bytes.TrimSuffix(in.rest[:i], []byte{'\r'})
	in.line++
	if string(line) == `\.` {
		in.ended = true
		return n, nil, nil
	}
	if in.line == 1 && in.c.header {
		return n, nil, nil
	}
	fields := [][]byte{}
	for {
		end := len(line)
		for k := 0; k < len(line); k++ {
			if line[k] == '\\' {
				k++
			} else if line[k] == in.c.delim {
				end = k
				break
			}
		}
		if raw := line[:end]; string(raw) == in.c.null {
			fields = append(fields, nil)
		} else {
			fields = append(fields, unescape(raw))
		}
		if end == len(line) {
			return n, fields, nil
		}
		line = line[end+1:]
	}
}

// unescape undoes the backslashes of COPY's text format.
func unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return append([]byte{}, b...)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		i++
		switch c := b[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := 0
			for k := 0; k < 3 && i < len(b) && b[i] >= '0' && b[i] <= '7'; k, i = k+1, i+1 {
				v = v<<3 | int(b[i]-'0')
			}
			i--
			out = append(out, byte(v))
		default:
			out = append(out, c)
		}
	}
	return out
}

// csvRow reads a record. A field that is not quoted and is the NULL string is NULL.
func (in *copyInput) csvRow(last bool) (int, [][]byte, error) {
	quoted := false
	n := -1
	var nulls []bool
	start := 0
	plain := true
	end := func(i int) {
		nulls = append(nulls, plain && string(bytes.TrimSuffix(in.rest[start:i], []byte{'\r'})) == in.c.null)
		start, plain = i+1, true
	}
	for i, c := range in.rest {
		switch {
		case c == '"':
			quoted, plain = !quoted, false
		case quoted:
		case c == in.c.delim:
			end(i)
		case c == '\n':
			n = i
		}
		if n >= 0 {
			break
		}
	}
	size := n + 1
	if n < 0 {
		if !last || len(in.rest) == 0 {
			return 0, nil, nil
		}
		n, size = len(in.rest), len(in.rest)
	}
	end(n)
	in.line++
	text := bytes.TrimSuffix(in.rest[:n], []byte{'\r'})
	if string(text) == `\.` {
		in.ended = true
		return size, nil, nil
	}
	if in.line == 1 && in.c.header {
		return size, nil, nil
	}
	if len(text) == 0 {
		if len(in.cols) != 1 {
			return 0, nil, fail("22P04", "COPY %s, line %d is empty", in.c.table, in.line)
		}
		return size, [][]byte{nil}, nil
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma, r.FieldsPerRecord = rune(in.c.delim), -1
	record, err := r.Read()
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, fail("22P04", "COPY %s, line %d: %v", in.c.table, in.line, err)
	}
	fields := [][]byte{}
	for k, s := range record {
		if k < len(nulls) && nulls[k] {
			fields = append(fields, nil)
		} else {
			fields = append(fields, []byte(s))
		}
	}
	return size, fields, nil
}
