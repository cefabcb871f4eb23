package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Column is one column of a list. Cell is for people; Raw is for -o csv and defaults to Cell.
type Column[T any] struct {
	Head  string
	Wide  bool // only with -o wide and csv
	Right bool // numbers
	Cell  func(T) string
	Raw   func(T) string
}

// List is records to print in whichever format the user asked for. All formats are made from Rows.
type List[T any] struct {
	Columns []Column[T]
	Rows    []T
	Name    func(T) string // for -o name
	Empty   string         // what a person is told when there are no rows
}

// PrintList prints a list.
func PrintList[T any](c *Call, l List[T]) error {
	switch c.Format {
	case FormatJSON, FormatYAML:
		rows := l.Rows
		if rows == nil {
			rows = []T{} // a program expects a list, not null
		}
		return printDocument(c.Out, c.Format, rows)
	case FormatNDJSON:
		for _, r := range l.Rows {
			if err := printDocument(c.Out, FormatNDJSON, r); err != nil {
				return err
			}
		}
		return nil
	case FormatName:
		for _, r := range l.Rows {
			if _, err := fmt.Fprintln(c.Out, l.Name(r)); err != nil {
				return err
			}
		}
		return nil
	case FormatCSV:
		return printCSV(c.Out, l)
	}
	if len(l.Rows) == 0 {
		c.Note("%s", l.Empty)
		return nil
	}
	var t Table
	for _, col := range l.Columns {
		if col.Wide && c.Format != FormatWide {
			continue
		}
		t.Head = append(t.Head, col.Head)
		t.Right = append(t.Right, col.Right)
	}
	for _, r := range l.Rows {
		var cells []string
		for _, col := range l.Columns {
			if !col.Wide || c.Format == FormatWide {
				cells = append(cells, col.Cell(r))
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	_, err := io.WriteString(c.Out, t.String())
	return err
}

// PrintRecord prints one record; human writes it for people.
func PrintRecord[T any](c *Call, record T, name string, human func(w io.Writer)) error {
	switch c.Format {
	case FormatJSON, FormatYAML, FormatNDJSON:
		return printDocument(c.Out, c.Format, record)
	case FormatName:
		_, err := fmt.Fprintln(c.Out, name)
		return err
	case FormatCSV:
		return printFields(c.Out, record)
	}
	var b bytes.Buffer
	human(&b)
	_, err := c.Out.Write(b.Bytes())
	return err
}

func printDocument(w io.Writer, format string, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if format == FormatJSON {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	if format != FormatYAML {
		_, err := w.Write(b.Bytes())
		return err
	}
	// JSON is YAML; reading it as nodes keeps the order of the fields, which a map would lose.
	var doc yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &doc); err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	plain(&doc)
	y := yaml.NewEncoder(w)
	y.SetIndent(2)
	if err := y.Encode(&doc); err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	return y.Close()
}

// plain takes JSON's braces and quotes away. Empty groups keep theirs: YAML has no other form for them.
func plain(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, child := range n.Content {
		plain(child)
	}
}

func printCSV[T any](w io.Writer, l List[T]) error {
	out := csv.NewWriter(w)
	var head []string
	for _, col := range l.Columns {
		head = append(head, strings.ReplaceAll(strings.ToLower(col.Head), " ", "_"))
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, r := range l.Rows {
		var cells []string
		for _, col := range l.Columns {
			cell := col.Raw
			if cell == nil {
				cell = col.Cell
			}
			cells = append(cells, cell(r))
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// printFields is a record as CSV: one line per field; what is nested stays JSON.
func printFields(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		_, err := fmt.Fprintf(w, "%s\n", b)
		return err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(b, &values); err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	out := csv.NewWriter(w)
	if err := out.Write([]string{"field", "value"}); err != nil {
		return err
	}
	fields := doc.Content[0].Content
	for i := 0; i+1 < len(fields); i += 2 {
		value := fields[i+1].Value
		if fields[i+1].Kind != yaml.ScalarNode {
			value = string(values[fields[i].Value])
		}
		if err := out.Write([]string{fields[i].Value, value}); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// Table is text in columns.
type Table struct {
	Head  []string
	Right []bool
	Rows  [][]string
}

// String pads every column but the last to its widest cell. Colour codes take no room.
func (t *Table) String() string {
	rows := t.Rows
	if len(t.Head) > 0 {
		rows = append([][]string{t.Head}, rows...)
	}
	var width []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], visible(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			pad := strings.Repeat(" ", width[i]-visible(cell))
			if i < len(t.Right) && t.Right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
			if i < len(r)-1 {
				line.WriteString("  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// visible counts the characters that a terminal shows.
func visible(s string) int {
	n := utf8.RuneCountInString(s)
	for i := strings.Index(s, "\x1b["); i >= 0; {
		end := strings.IndexByte(s[i:], 'm')
		if end < 0 {
			return n
		}
		n -= end + 1
		next := strings.Index(s[i+end:], "\x1b[")
		if next < 0 {
			return n
		}
		i += end + next
	}
	return n
}
