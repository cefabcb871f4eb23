package parser

import (
	"strings"
	"unicode"
)

// Print writes the script in one canonical form that Parse reads back as the same statements.
func Print(s *Script) string {
	p := &printer{}
	for _, st := range s.Statements {
		p.statement(st)
		p.WriteString(";\n")
	}
	return p.String()
}

type printer struct{ strings.Builder }

func (p *printer) statement(s Statement) {
	switch s := s.(type) {
	case *Set:
		s.print(p)
	case *CreateConnection:
		s.print(p)
	case *CreateMirror:
		s.print(p)
	}
}

func (s *Set) print(p *printer) {
	p.WriteString("SET " + quoteString(s.Key.Text) + " = " + quoteString(s.Value.Text))
}

func (s *CreateConnection) print(p *printer) {
	p.WriteString("CREATE CONNECTION " + quoteIdent(s.Name.Text))
	p.with(s.Properties)
}

func (s *CreateMirror) print(p *printer) {
	p.WriteString("CREATE MIRROR " + quoteIdent(s.Name.Text) + " FROM " + s.From.text() + " TO " + s.To.text())
	p.list("TABLES", s.Tables)
	p.list("EXCEPT", s.Except)
	for i, r := range s.Routes {
		p.lead(i, "ROUTE")
		p.WriteString(quoteString(r.From.Text) + " TO " + quoteString(r.To.Text))
	}
	p.list("EXCLUDE COLUMNS", s.ExcludeColumns)
	for i, f := range s.Filters {
		p.lead(i, "WHERE")
		p.WriteString("TABLE " + quoteString(f.Table.Text) + " IS " + quoteString(f.Where.Text))
	}
	p.with(s.Properties)
}

func (e Endpoint) text() string {
	if e.Name.Text != "" {
		return quoteIdent(e.Name.Text)
	}
	return quoteString(e.URL.Text)
}

func (p *printer) lead(i int, clause string) {
	if i == 0 {
		p.WriteString("\n  " + clause + " ")
	} else {
		p.WriteString(",\n    ")
	}
}

func (p *printer) list(clause string, items []Literal) {
	for i, l := range items {
		if i == 0 {
			p.WriteString("\n  " + clause + " ")
		} else {
			p.WriteString(", ")
		}
		p.WriteString(quoteString(l.Text))
	}
}

func (p *printer) with(properties []Property) {
	for i, o := range properties {
		if i == 0 {
			p.WriteString("\n  WITH (\n    ")
		} else {
			p.WriteString(",\n    ")
		}
		p.WriteString(quoteString(o.Key.Text) + " = " + quoteString(o.Value.Text))
	}
	if len(properties) > 0 {
		p.WriteString("\n  )")
	}
}

func quoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quoteIdent leaves plain names as they are. Others take backticks, which both Flink and weir read.
func quoteIdent(s string) string {
	plain := s != "" && !isClause(s)
	for i, r := range s {
		if !isWordStart(r) && (i == 0 || !unicode.IsDigit(r) && r != '$') {
			plain = false
		}
	}
	if plain {
		return s
	}
	return "`" + strings.ReplaceAll(s, "`", "``") + "`"
}
