package parser

// CreateConnection names a database.
type CreateConnection struct {
	Pos
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
	Pos
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

func (*CreateConnection) statement() {}
func (*CreateMirror) statement()     {}
