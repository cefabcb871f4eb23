package parser

func (g gen) columns() []Column {
	return list(g, 1, func() Column {
		c := Column{Name: g.ident(), Comment: g.maybeLit()}
		switch g.n(2) {
		case 0:
			c.Computed = g.expr()
		case 1:
			c.Type = g.dataType()
			c.Metadata = &Metadata{From: g.maybeLit(), Virtual: g.flip()}
		default:
			c.Type = g.dataType()
		}
		return c
	})
}

func (g gen) primaryKey() *PrimaryKey {
	if g.flip() {
		return nil
	}
	return &PrimaryKey{Name: g.maybeIdent(), Columns: g.idents(), Enforcement: Enforcement(g.n(2))}
}

func (g gen) watermark() *Watermark {
	if g.flip() {
		return nil
	}
	return &Watermark{Column: g.name(), X: g.expr()}
}

func (g gen) distribution() *Distribution {
	n := g.n(4)
	switch g.n(3) {
	case 0:
		return &Distribution{Kind: pick(g, "HASH", "RANGE", ""), Columns: g.idents(), Buckets: g.digits()}
	case 1:
		return &Distribution{Buckets: &n}
	}
	return nil
}

func (g gen) properties() []Property {
	if g.flip() {
		return nil
	}
	return []Property{{g.lit(), g.lit()}}
}

func (g gen) definition() Statement {
	object := pick(g, objects()...)
	switch g.n(5) {
	case 0:
		s := &CreateTable{OrReplace: g.flip(), Temporary: g.flip(), IfNotExists: g.flip(), Name: g.name(), Columns: g.columns(), PrimaryKey: g.primaryKey(),
			Watermark: g.watermark(), Comment: g.maybeLit(), Distribution: g.distribution(), PartitionedBy: list(g, 0, g.ident), Properties: g.properties()}
		if g.flip() {
			s.Like = &TableLike{Name: g.name(), Options: list(g, 0, func() LikeOption { return LikeOption{Action: "INCLUDING", What: "ALL"} })}
		}
		if g.flip() {
			s.Query = g.query()
		}
		return s
	case 1:
		return &CreateView{OrReplace: g.flip(), Temporary: g.flip(), IfNotExists: g.flip(), Name: g.name(), Comment: g.maybeLit(), Query: g.query(),
			Columns: list(g, 0, func() ViewColumn { return ViewColumn{g.ident(), g.maybeLit()} })}
	case 2:
		return &CreateMaterializedView{OrReplace: g.flip(), IfNotExists: g.flip(), Name: g.name(), Properties: g.properties(), Query: g.query()}
	case 3:
		return &CreateMaterializedTable{OrAlter: g.flip(), IfNotExists: g.flip(), Name: g.name(), PrimaryKey: g.primaryKey(), Properties: g.properties(),
			Freshness: &IntervalLit{Text: g.lit(), Unit: g.qualifier()}, RefreshMode: pick(g, "", "FULL"), Query: g.query()}
	case 4:
		return &Drop{Temporary: g.flip(), Object: object, IfExists: g.flip(), Name: g.name(), Cascade: g.flip()}
	}
	return g.alter()
}

func (g gen) alter() Statement {
	s := &Alter{Object: ObjectMaterializedTable, IfExists: g.flip(), Name: g.name()}
	columns := g.columns()
	if g.flip() {
		columns[0].Place = pick(g, &Place{First: true}, &Place{After: g.ident()})
	}
	switch g.n(9) {
	case 0:
		s.Action = &AddColumns{Columns: columns, PrimaryKey: g.primaryKey(), Watermark: g.watermark()}
	case 1:
		s.Action = &ModifyColumns{Columns: columns, PrimaryKey: g.primaryKey(), Watermark: g.watermark()}
	case 2:
		s.Action = &DropColumns{Columns: g.idents()}
	case 3:
		s.Action = pick[AlterAction](g, &DropElement{What: "PRIMARY KEY"}, &DropElement{What: "CONSTRAINT", Name: g.ident()}, &DropElement{What: "WATERMARK"})
	case 4:
		s.Action = &RenameColumn{From: g.ident(), To: g.ident()}
	case 5:
		s.Action = &RenameTo{Name: g.name()}
	case 6:
		s.Action = pick[AlterAction](g, &SetOptions{Properties: []Property{{g.lit(), g.lit()}}}, &ResetOptions{Keys: list(g, 1, g.lit)})
	case 7:
		s.Action = &AlterQuery{Query: g.query()}
	case 8:
		s.Action = pick[AlterAction](g, &Suspend{}, &Resume{Properties: g.properties()}, &SetFreshness{RefreshMode: "FULL"})
	default:
		s.Action = &Refresh{Partition: list(g, 0, func() Assignment { return Assignment{g.ident(), g.expr()} })}
	}
	return s
}

func (g gen) insert() *Insert {
	return &Insert{Overwrite: g.flip(), Table: g.name(), Hints: g.hints(), Columns: list(g, 0, g.ident), Query: g.query(), OnConflict: OnConflict(g.n(3)),
		Partition: list(g, 0, func() Assignment { return Assignment{g.ident(), g.maybe(g.expr)} })}
}

func (g gen) manipulation() Statement {
	switch g.n(7) {
	case 0, 1:
		return g.insert()
	case 2:
		return &Update{Table: g.name(), Alias: g.maybeIdent(), Where: g.maybe(g.expr),
			Set: list(g, 1, func() Assignment { return Assignment{g.ident(), g.expr()} })}
	case 3:
		return &Delete{Table: g.name(), Alias: g.maybeIdent(), Where: g.maybe(g.expr)}
	case 4:
		return &StatementSet{Inserts: list(g, 1, g.insert)}
	case 5:
		return &Explain{Analyze: g.flip(), Statement: pick[Statement](g, g.insert(), &QueryStatement{Query: g.query()}, &StatementSet{Inserts: list(g, 1, g.insert)})}
	case 6:
		return &Describe{Object: pick(g, ObjectTable, ObjectCatalog, ObjectMirror), Extended: g.flip(), Name: g.name()}
	}
	if g.flip() {
		return &Show{Name: g.name()}
	}
	return &Show{What: pick(g, "TABLES", "MATERIALIZED VIEWS"), In: g.name(), Not: true, Like: &Literal{Text: "a"}, ILike: g.flip()}
}
