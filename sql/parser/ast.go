// Package parser reads weir's SQL: Flink's dialect with CREATE CONNECTION and CREATE MIRROR added. It promises that no
// input makes it fail otherwise than by an error that names line, column and what was expected there, that every node
// knows where it stood, and that Print gives back a text which parses to the same statements.
//
// What this release can run is parsed in full. Of Flink's other statements only the first words are read, so that they
// are answered as known and not built yet and not as a mistake of the user.
package parser

// Script is a file: statements separated by semicolons.
type Script struct {
	File       string
	Statements []Statement
}

// Statement is one of *CreateConnection, *CreateMirror and *Set.
type Statement interface {
	// Position is where the statement's first word stands.
	Position() Pos
	print(p *printer)
}

// Ident is a name. Case counts, as in Flink.
type Ident struct {
	Text string
	Pos  Pos
}

// Literal is a string.
type Literal struct {
	Text string
	Pos  Pos
}

// Property is 'key' = 'value' inside WITH.
type Property struct {
	Key   Literal
	Value Literal
}

// CreateConnection names a database.
type CreateConnection struct {
	Pos        Pos
	Name       Ident
	Properties []Property
}

// Endpoint is a connection's name or its URL; one of the two is set.
type Endpoint struct {
	Name Ident
	URL  Literal
}

// Pos is where the endpoint stands.
func (e Endpoint) Pos() Pos {
	if e.Name.Text != "" {
		return e.Name.Pos
	}
	return e.URL.Pos
}

// Route renames the tables that From matches.
type Route struct {
	From Literal
	To   Literal
}

// Filter keeps the rows of the tables that Table matches for which Where is true.
type Filter struct {
	Table Literal
	Where Literal
}

// CreateMirror copies tables of one database to another and keeps them equal.
type CreateMirror struct {
	Pos            Pos
	Name           Ident
	From           Endpoint
	To             Endpoint
	Tables         []Literal
	Except         []Literal
	Routes         []Route
	ExcludeColumns []Literal
	Filters        []Filter
	Properties     []Property
}

// Set is SET 'key' = 'value'.
type Set struct {
	Pos   Pos
	Key   Literal
	Value Literal
}

// Position of each statement.
func (s *CreateConnection) Position() Pos { return s.Pos }
func (s *CreateMirror) Position() Pos     { return s.Pos }
func (s *Set) Position() Pos              { return s.Pos }
