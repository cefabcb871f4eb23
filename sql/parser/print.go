package parser

import (
	"strconv"
	"strings"
	"unicode"
)

// Print writes the script in one canonical form that Parse reads back as the same statements.
func Print(s *Script) string {
	p := &printer{}
	for _, st := range s.Statements {
		p.statement(st)
		p.s(";\n")
	}
	return p.String()
}

// PrintNode writes a statement, query, table reference, expression, data type, window or pattern in the form of Print.
func PrintNode(n Node) string {
	p := &printer{}
	switch n := n.(type) {
	case Statement:
		p.statement(n)
	case Query:
		p.query(n)
	case TableRef:
		p.tableRef(n)
	case Expr:
		p.expr(n, levelOr)
	case Pattern:
		p.pattern(n)
	case *DataType:
		p.dataType(n)
	case *Window:
		p.window(n)
	}
	return p.String()
}

type printer struct {
	strings.Builder
	indent int
}

// s writes texts one after another.
func (p *printer) s(texts ...string) {
	for _, t := range texts {
		p.WriteString(t)
	}
}

// line begins a new line.
func (p *printer) line() {
	p.WriteByte('\n')
	for range p.indent {
		p.WriteString("  ")
	}
}

// nested writes something that is indented, between parentheses of their own lines.
func (p *printer) nested(what func()) {
	p.s("(")
	p.indent++
	p.line()
	what()
	p.indent--
	p.line()
	p.s(")")
}

// opt writes the text if given.
func (p *printer) opt(given bool, text string) {
	if given {
		p.s(text)
	}
}

func join[T any](p *printer, items []T, item func(T)) {
	for i, it := range items {
		p.opt(i > 0, ", ")
		item(it)
	}
}

func (p *printer) idents(ids []Ident) {
	p.s("(")
	join(p, ids, func(id Ident) { p.s(quoteIdent(id.Text)) })
	p.s(")")
}

func (p *printer) comment(l *Literal) {
	if l != nil {
		p.s(" COMMENT ", quoteString(l.Text))
	}
}

func (p *printer) properties(props []Property) {
	if len(props) > 0 {
		p.indent++
		p.line()
		p.indent--
		p.s("WITH ")
		p.options(props)
	}
}

// options writes ('key' = 'value', ..), one option a line.
func (p *printer) options(props []Property) {
	p.indent++
	p.s("(")
	p.indent++
	for i, o := range props {
		p.opt(i > 0, ",")
		p.line()
		p.s(quoteString(o.Key.Text), " = ", quoteString(o.Value.Text))
	}
	p.indent--
	p.line()
	p.s(")")
	p.indent--
}

func quoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// quoteIdent leaves plain names as they are. Others take backticks, which both Flink and weir read.
func quoteIdent(s string) string {
	if plainIdent(s) && !leads(s) {
		return s
	}
	return backticks(s)
}

func backticks(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }

func plainIdent(s string) bool {
	for i, r := range s {
		if !isWordStart(r) && (i == 0 || !unicode.IsDigit(r) && r != '$') {
			return false
		}
	}
	return s != ""
}

func number10(n int) string { return strconv.Itoa(n) }
