// Package parser reads weir's SQL: Flink's dialect with CREATE CONNECTION, CREATE MIRROR, SUBSCRIBE and Postgres's casts
// and type names added. It promises that no input makes it fail otherwise than by an error that names line, column and
// what was expected there, that every node knows where it stood, and that Print gives back a text which parses to the
// same tree.
//
// The tree says what was written and nothing about what it means: names are not looked up, types are not checked.
// Spellings that mean the same give the same tree (SUBSTRING(a FROM 2) and SUBSTRING(a, 2), FETCH FIRST and LIMIT), so
// that what comes after has one case to think of.
package parser

import "strings"

// Script is a file: statements separated by semicolons.
type Script struct {
	File       string
	Statements []Statement
}

// Node is anything in the tree that has a place: a pointer to one of this package's structs.
type Node interface {
	// Position is where the node's first token stands.
	Position() Pos
	node()
}

// Position makes a node of every struct that embeds Pos.
func (p Pos) Position() Pos { return p }
func (Pos) node()           {}

// Statement is one of the pointers to structs of ast_statement.go, ast_table.go and ast_mirror.go.
type Statement interface {
	Node
	statement()
}

// Query is one of *Select, *SetOp, *Values, *TableQuery, *Ordered and *With.
type Query interface {
	Node
	query()
}

// TableRef is one of *Table, *Derived, *TableFunction, *Unnest, *Join and *MatchRecognize.
type TableRef interface {
	Node
	tableRef()
}

// Expr is one of the pointers to structs of ast_expr.go.
type Expr interface {
	Node
	expr()
}

// Ident is a name. Case counts, as in Flink. An optional name that was not given has the text "".
type Ident struct {
	Text string
	Pos
}

// Name is a name with its qualifiers, outermost first: catalog.database.table. A name that was not given is nil.
type Name []Ident

// Position is where the first part stands.
func (n Name) Position() Pos {
	if len(n) == 0 {
		return Pos{}
	}
	return n[0].Pos
}

// Last is the innermost part.
func (n Name) Last() Ident {
	if len(n) == 0 {
		return Ident{}
	}
	return n[len(n)-1]
}

// String is the name as SQL.
func (n Name) String() string {
	parts := make([]string, len(n))
	for i, part := range n {
		parts[i] = quoteIdent(part.Text)
	}
	return strings.Join(parts, ".")
}

// Literal is a string.
type Literal struct {
	Text string
	Pos
}

// Property is 'key' = 'value' inside WITH.
type Property struct {
	Key   Literal
	Value Literal
}
