package parser

func (p *printer) createConnection(s *CreateConnection) {
	p.s("CREATE CONNECTION ", quoteIdent(s.Name.Text))
	p.properties(s.Properties)
}

func (p *printer) createMirror(s *CreateMirror) {
	p.s("CREATE MIRROR ", quoteIdent(s.Name.Text), " FROM ", s.From.text(), " TO ", s.To.text())
	p.literals("TABLES", s.Tables)
	p.literals("EXCEPT", s.Except)
	for i, r := range s.Routes {
		p.lead(i, "ROUTE")
		p.s(quoteString(r.From.Text), " TO ", quoteString(r.To.Text))
	}
	p.literals("EXCLUDE COLUMNS", s.ExcludeColumns)
	for i, f := range s.Filters {
		p.lead(i, "WHERE")
		p.s("TABLE ", quoteString(f.Table.Text), " IS ", quoteString(f.Where.Text))
	}
	p.properties(s.Properties)
}

func (e Endpoint) text() string {
	if e.Name.Text != "" {
		return quoteIdent(e.Name.Text)
	}
	return quoteString(e.URL.Text)
}

func (p *printer) lead(i int, clause string) {
	if i == 0 {
		p.s("\n  ", clause, " ")
	} else {
		p.s(",\n    ")
	}
}

func (p *printer) literals(clause string, items []Literal) {
	for i, l := range items {
		if i == 0 {
			p.s("\n  ", clause, " ")
		} else {
			p.s(", ")
		}
		p.s(quoteString(l.Text))
	}
}
