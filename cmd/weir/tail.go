package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/cli"
)

func (p *program) viewNames(ctx context.Context, c *cli.Call) []string {
	var names []string
	// Completion has no place to tell an error.
	_ = p.withClient(c, func(cl client) error {
		pipelines, err := cl.Pipelines(ctx)
		for _, v := range pipelines {
			if v.Status.Query == nil {
				continue
			}
			for _, view := range v.Status.Query.Views {
				names = append(names, view.Name)
			}
		}
		return err
	})
	return names
}

// viewsTail prints a view's rows and then its changes.
func (p *program) viewsTail(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		var view api.View
		table := tailTable{c: c}
		err := cl.Tail(ctx, c.Text("pipeline"), c.Arg(0), func(l api.TailLine) error {
			switch {
			case l.View != nil:
				view = *l.View
			case c.Format == cli.FormatJSON || c.Format == cli.FormatNDJSON:
				if l.Change == "" {
					return nil
				}
				b, err := json.Marshal(l)
				if err == nil {
					_, err = fmt.Fprintln(c.Out, string(b))
				}
				return err
			case l.Change != "":
				return table.add(view, l)
			case l.Complete:
				return table.flush(view)
			}
			return nil
		})
		if ctx.Err() != nil {
			return nil // interrupted, which is how it ends
		}
		return err
	})
}

// tailTable prints rows in columns that are as wide as what has been seen so far.
type tailTable struct {
	c      *cli.Call
	rows   [][]string
	widths []int
	begun  bool
}

// tailChunk is how many rows of one epoch are laid out together.
const tailChunk = 1000

func (t *tailTable) add(v api.View, l api.TailLine) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(l.Row, &values); err != nil {
		return err
	}
	mark := l.Change
	if l.Count > 0 {
		mark += fmt.Sprint(l.Count)
	}
	row := []string{fmt.Sprint(l.Epoch), mark}
	for _, c := range v.Columns {
		row = append(row, cellOf(values[c.Name]))
	}
	if t.rows = append(t.rows, row); len(t.rows) == tailChunk {
		return t.flush(v)
	}
	return nil
}

func cellOf(v json.RawMessage) string {
	var s string
	switch {
	case len(v) == 0 || string(v) == "null":
		return "NULL"
	case v[0] == '"' && json.Unmarshal(v, &s) == nil:
		return strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, s)
	}
	return string(v)
}

func (t *tailTable) flush(v api.View) error {
	if !t.begun {
		t.begun = true
		head := []string{"EPOCH", " "}
		for _, c := range v.Columns {
			head = append(head, strings.ToUpper(c.Name))
		}
		t.rows = append([][]string{head}, t.rows...)
	}
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for _, r := range t.rows {
		for i, cell := range r {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", t.widths[i]-len([]rune(cell))))
			}
		}
		b.WriteString("\n")
	}
	t.rows = t.rows[:0]
	_, err := fmt.Fprint(t.c.Out, b.String())
	return err
}

// stateRow is one entry of `weir state get`.
type stateRow struct {
	Operator string `json:"operator"`
	Node     string `json:"node"`
	api.StateEntry
}

func (p *program) stateGet(ctx context.Context, c *cli.Call) error {
	return p.withClient(c, func(cl client) error {
		list, err := cl.StateEntries(ctx, c.Arg(0), c.Arg(1), c.Arg(2))
		if err != nil {
			return err
		}
		rows := []stateRow{}
		for _, s := range list {
			for _, e := range s.Entries {
				rows = append(rows, stateRow{s.Operator, s.Node, e})
			}
		}
		return cli.PrintList(c, cli.List[stateRow]{
			Rows: rows, Name: func(r stateRow) string { return r.Node }, Empty: "nothing for this key",
			Columns: []cli.Column[stateRow]{
				{Head: "OPERATOR", Cell: func(r stateRow) string { return r.Operator }},
				{Head: "NODE", Wide: true, Cell: func(r stateRow) string { return r.Node }},
				{Head: "STATE", Cell: func(r stateRow) string { return r.State }},
				{Head: "COUNT", Right: true, Cell: func(r stateRow) string {
					if r.Count == 0 {
						return ""
					}
					return fmt.Sprint(r.Count)
				}},
				{Head: "VALUE", Cell: func(r stateRow) string {
					if r.Row != nil {
						return string(r.Row)
					}
					return "0x" + r.Bytes
				}},
			},
		})
	})
}
