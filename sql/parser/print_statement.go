package parser

import "github.com/weirstream/weir/internal/nearest"

func (p *printer) statement(s Statement) {
	switch s := s.(type) {
	case *CreateConnection:
		p.createConnection(s)
	case *CreateMirror:
		p.createMirror(s)
	case *QueryStatement:
		p.query(s.Query)
	case *Set:
		p.s("SET ", quoteString(s.Key.Text), " = ", quoteString(s.Value.Text))
	case *Reset:
		p.s("RESET")
		if s.Key != nil {
			p.s(" ", quoteString(s.Key.Text))
		}
	case *Insert:
		p.insert(s)
	case *Update:
		p.s("UPDATE ", s.Table.String())
		p.alias(Alias{Name: s.Alias})
		p.line()
		p.s("SET ")
		p.assignments(s.Set)
		p.clause("WHERE", s.Where)
		p.returned(s.Returning)
	case *Delete:
		p.s("DELETE FROM ", s.Table.String())
		p.alias(Alias{Name: s.Alias})
		p.clause("WHERE", s.Where)
		p.returned(s.Returning)
	case *Truncate:
		p.s("TRUNCATE TABLE ", s.Table.String())
	case *StatementSet:
		p.s("EXECUTE STATEMENT SET BEGIN")
		p.inserts(s)
	case *Explain:
		p.explain(s)
	case *Use:
		p.s("USE ")
		p.opt(s.What != "", s.What+" ")
		join(p, s.Names, func(n Name) { p.s(n.String()) })
	case *Show:
		p.show(s)
	case *Describe:
		p.s("DESCRIBE ")
		p.opt(s.Object != ObjectTable, string(s.Object)+" ")
		p.opt(s.Extended, "EXTENDED ")
		p.s(s.Name.String())
	case *Begin:
		p.s("BEGIN")
		p.opt(s.Isolation != "", " ISOLATION LEVEL "+s.Isolation)
		p.opt(s.ReadOnly, " READ ONLY")
		p.opt(s.ReadWrite, " READ WRITE")
	case *Commit:
		p.s("COMMIT")
	case *Rollback:
		p.s("ROLLBACK")
	case *Subscribe:
		p.s("SUBSCRIBE TO ")
		if s.Query != nil {
			p.subquery(s.Query)
		} else {
			p.s(s.View.String())
		}
		p.properties(s.Properties)
	default:
		p.definition(s)
	}
}

func (p *printer) insert(s *Insert) {
	p.s("INSERT ")
	if s.Overwrite {
		p.s("OVERWRITE ")
	} else {
		p.s("INTO ")
	}
	p.s(s.Table.String())
	p.hints(s.Hints)
	if s.Partition != nil {
		p.s(" PARTITION (")
		p.assignments(s.Partition)
		p.s(")")
	}
	if s.Columns != nil {
		p.s(" ")
		p.idents(s.Columns)
	}
	p.line()
	p.query(s.Query)
	if s.OnConflict != ConflictUnstated {
		p.line()
		p.s("ON CONFLICT ")
		if s.ConflictKey != nil {
			p.idents(s.ConflictKey)
			p.s(" ")
		}
		p.s("DO ", [...]string{"", "NOTHING", "ERROR", "DEDUPLICATE", "UPDATE SET "}[s.OnConflict])
		p.assignments(s.ConflictSet)
		p.clause("WHERE", s.ConflictWhere)
	}
	p.returned(s.Returning)
}

func (p *printer) returned(items []SelectItem) {
	if items == nil {
		return
	}
	p.line()
	p.s("RETURNING ")
	p.items(items)
}

func (p *printer) assignments(as []Assignment) {
	join(p, as, func(a Assignment) {
		p.s(quoteIdent(a.Column.Text))
		if a.Value != nil {
			p.s(" = ")
			p.expr(a.Value, levelOr)
		}
	})
}

func (p *printer) inserts(s *StatementSet) {
	p.indent++
	for _, in := range s.Inserts {
		p.line()
		p.insert(in)
		p.s(";")
	}
	p.indent--
	p.line()
	p.s("END")
}

func (p *printer) explain(s *Explain) {
	p.s("EXPLAIN ")
	p.opt(s.Analyze, "ANALYZE ")
	for i, d := range s.Details {
		p.opt(i > 0, ", ")
		p.s(string(d))
	}
	p.opt(s.Details != nil, " ")
	p.statement(s.Statement)
}

func (p *printer) show(s *Show) {
	p.s("SHOW ", s.What)
	switch {
	case s.What == "":
		p.s(settingName(s.Name))
	case s.What == "COLUMNS":
		p.s(" FROM ", s.Name.String())
	case s.Name != nil:
		p.s(" ", s.Name.String())
	}
	if s.In != nil {
		p.s(" FROM ", s.In.String())
	}
	if s.Like != nil {
		p.s(not(s.Not))
		if s.ILike {
			p.s(" ILIKE ")
		} else {
			p.s(" LIKE ")
		}
		p.s(quoteString(s.Like.Text))
	}
}

// settingName writes a setting's name, quoted if it might be read as something to list.
func settingName(n Name) string {
	if n[0].Text == "" || nearest.Of(n[0].Text, shown()) == "" && !oneOf(n[0].Text, []string{"CREATE", "CURRENT"}) {
		return n.String()
	}
	if len(n) == 1 {
		return backticks(n[0].Text)
	}
	return backticks(n[0].Text) + "." + n[1:].String()
}

// definition writes CREATE, DROP and ALTER.
func (p *printer) definition(s Statement) {
	switch s := s.(type) {
	case *CreateTable:
		p.s("CREATE ")
		p.opt(s.OrReplace, "OR REPLACE ")
		p.opt(s.Temporary, "TEMPORARY ")
		p.created("TABLE", s.IfNotExists, s.Name)
		p.elements(s.Columns, s.PrimaryKey, s.Watermark, true)
		p.tableOptions(s.Comment, s.Distribution, s.PartitionedBy, s.Properties)
		p.like(s.Like)
		p.as(s.Query)
	case *CreateView:
		p.s("CREATE ")
		p.opt(s.OrReplace, "OR REPLACE ")
		p.opt(s.Temporary, "TEMPORARY ")
		p.created("VIEW", s.IfNotExists, s.Name)
		p.viewColumns(s.Columns)
		p.comment(s.Comment)
		p.as(s.Query)
	case *CreateMaterializedView:
		p.s("CREATE ")
		p.opt(s.OrReplace, "OR REPLACE ")
		p.created("MATERIALIZED VIEW", s.IfNotExists, s.Name)
		p.viewColumns(s.Columns)
		p.comment(s.Comment)
		p.properties(s.Properties)
		p.as(s.Query)
	case *CreateMaterializedTable:
		p.materializedTable(s)
	case *CreateCatalog:
		p.s("CREATE ")
		p.created("CATALOG", s.IfNotExists, Name{s.Name})
		p.comment(s.Comment)
		p.properties(s.Properties)
	case *CreateDatabase:
		p.s("CREATE ")
		p.created("DATABASE", s.IfNotExists, s.Name)
		p.comment(s.Comment)
		p.properties(s.Properties)
	case *CreateFunction:
		p.s("CREATE ")
		p.opt(s.Temporary, "TEMPORARY ")
		p.opt(s.System, "SYSTEM ")
		p.created("FUNCTION", s.IfNotExists, s.Name)
		p.s(" AS ", quoteString(s.As.Text))
		p.opt(s.Language != "", " LANGUAGE "+s.Language)
		p.opt(s.Using != nil, " USING ")
		join(p, s.Using, func(r Resource) { p.s(r.Kind, " ", quoteString(r.Path.Text)) })
		p.properties(s.Properties)
	case *Drop:
		p.s("DROP ")
		p.opt(s.Temporary, "TEMPORARY ")
		p.opt(s.System, "SYSTEM ")
		p.s(string(s.Object), " ")
		p.opt(s.IfExists, "IF EXISTS ")
		p.s(s.Name.String())
		p.opt(s.Cascade, " CASCADE")
	case *Alter:
		p.s("ALTER ", string(s.Object), " ")
		p.opt(s.IfExists, "IF EXISTS ")
		p.s(s.Name.String(), " ")
		p.alterAction(s.Action)
	}
}

func (p *printer) created(object string, ifNotExists bool, n Name) {
	p.s(object, " ")
	p.opt(ifNotExists, "IF NOT EXISTS ")
	p.s(n.String())
}

func (p *printer) as(q Query) {
	if q != nil {
		p.s(" AS")
		p.line()
		p.query(q)
	}
}

// elements writes columns, key and watermark, one a line.
func (p *printer) elements(columns []Column, key *PrimaryKey, mark *Watermark, space bool) {
	if columns == nil && key == nil && mark == nil {
		return
	}
	p.opt(space, " ")
	p.nested(func() {
		first := true
		next := func() {
			if !first {
				p.s(",")
				p.line()
			}
			first = false
		}
		for _, c := range columns {
			next()
			p.column(c)
		}
		if key != nil {
			next()
			p.opt(key.Name.Text != "", "CONSTRAINT "+quoteIdent(key.Name.Text)+" ")
			p.s("PRIMARY KEY ")
			p.idents(key.Columns)
			p.s([...]string{"", " ENFORCED", " NOT ENFORCED"}[key.Enforcement])
		}
		if mark != nil {
			next()
			p.s("WATERMARK FOR ", mark.Column.String(), " AS ")
			p.expr(mark.X, levelOr)
		}
	})
}

func (p *printer) column(c Column) {
	p.s(quoteIdent(c.Name.Text))
	if c.Type != nil {
		p.s(" ")
		p.dataType(c.Type)
	}
	if m := c.Metadata; m != nil {
		p.s(" METADATA")
		if m.From != nil {
			p.s(" FROM ", quoteString(m.From.Text))
		}
		p.opt(m.Virtual, " VIRTUAL")
	}
	if c.Computed != nil {
		p.s(" AS ")
		p.expr(c.Computed, levelOr)
	}
	p.comment(c.Comment)
	if c.Place != nil {
		if c.Place.First {
			p.s(" FIRST")
		} else {
			p.s(" AFTER ", quoteIdent(c.Place.After.Text))
		}
	}
}

func (p *printer) tableOptions(comment *Literal, d *Distribution, partitioned []Ident, properties []Property) {
	p.comment(comment)
	p.distribution(d, " DISTRIBUTED")
	if partitioned != nil {
		p.s(" PARTITIONED BY ")
		p.idents(partitioned)
	}
	p.properties(properties)
}

func (p *printer) distribution(d *Distribution, word string) {
	if d == nil {
		return
	}
	p.s(word)
	if d.Columns != nil {
		p.s(" BY ")
		p.s(d.Kind)
		p.idents(d.Columns)
	}
	if d.Buckets != nil {
		p.s(" INTO ", number10(*d.Buckets), " BUCKETS")
	}
}

func (p *printer) like(l *TableLike) {
	if l == nil {
		return
	}
	p.line()
	p.s("LIKE ", l.Name.String())
	if l.Options != nil {
		p.s(" (")
		for i, o := range l.Options {
			p.opt(i > 0, " ")
			p.s(o.Action, " ", o.What)
		}
		p.s(")")
	}
}

func (p *printer) viewColumns(cs []ViewColumn) {
	if cs == nil {
		return
	}
	p.s(" (")
	join(p, cs, func(c ViewColumn) {
		p.s(quoteIdent(c.Name.Text))
		p.comment(c.Comment)
	})
	p.s(")")
}

func (p *printer) materializedTable(s *CreateMaterializedTable) {
	p.s("CREATE ")
	p.opt(s.OrAlter, "OR ALTER ")
	p.created("MATERIALIZED TABLE", s.IfNotExists, s.Name)
	p.elements(s.Columns, s.PrimaryKey, s.Watermark, true)
	p.tableOptions(s.Comment, s.Distribution, s.PartitionedBy, s.Properties)
	if s.StartMode != nil {
		p.line()
		p.s("START_MODE = ")
		p.bare(s.StartMode)
	}
	if s.Freshness != nil {
		p.line()
		p.s("FRESHNESS = ")
		p.interval(s.Freshness)
	}
	if s.RefreshMode != "" {
		p.line()
		p.s("REFRESH_MODE = ", s.RefreshMode)
	}
	p.as(s.Query)
}

func (p *printer) alterAction(a AlterAction) {
	switch a := a.(type) {
	case *AddColumns:
		p.s("ADD ")
		p.elements(a.Columns, a.PrimaryKey, a.Watermark, false)
		p.distribution(a.Distribution, "DISTRIBUTION")
	case *ModifyColumns:
		p.s("MODIFY ")
		p.elements(a.Columns, a.PrimaryKey, a.Watermark, false)
		p.distribution(a.Distribution, "DISTRIBUTION")
	case *DropColumns:
		p.s("DROP ")
		p.idents(a.Columns)
	case *DropElement:
		p.s("DROP ", a.What)
		p.opt(a.Name.Text != "", " "+quoteIdent(a.Name.Text))
	case *RenameColumn:
		p.s("RENAME ", quoteIdent(a.From.Text), " TO ", quoteIdent(a.To.Text))
	case *RenameTo:
		p.s("RENAME TO ", a.Name.String())
	case *SetOptions:
		p.s("SET ")
		p.options(a.Properties)
	case *ResetOptions:
		p.s("RESET (")
		join(p, a.Keys, func(l Literal) { p.s(quoteString(l.Text)) })
		p.s(")")
	case *AlterQuery:
		p.s("AS")
		p.line()
		p.query(a.Query)
	case *SetFreshness:
		if a.Freshness != nil {
			p.s("SET FRESHNESS = ")
			p.interval(a.Freshness)
		} else {
			p.s("SET REFRESH_MODE = ", a.RefreshMode)
		}
	case *Suspend:
		p.s("SUSPEND")
	case *Resume:
		p.s("RESUME")
		p.properties(a.Properties)
	case *Refresh:
		p.s("REFRESH")
		if a.Partition != nil {
			p.s(" PARTITION (")
			p.assignments(a.Partition)
			p.s(")")
		}
	}
}
