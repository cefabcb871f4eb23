package parser

import "strings"

func (p *printer) subquery(q Query) { p.nested(func() { p.query(q) }) }

func (p *printer) query(q Query) {
	switch q := q.(type) {
	case *With:
		p.s("WITH ")
		p.opt(q.Recursive, "RECURSIVE ")
		for i, c := range q.Tables {
			if i > 0 {
				p.s(",")
				p.line()
			}
			p.s(quoteIdent(c.Name.Text))
			if c.Columns != nil {
				p.s(" ")
				p.idents(c.Columns)
			}
			p.s(" AS ")
			p.subquery(c.Query)
		}
		p.line()
		if _, ok := q.Body.(*With); ok {
			p.subquery(q.Body)
		} else {
			p.query(q.Body)
		}
	case *Ordered:
		p.operand(q.Body, setLoosest)
		if q.OrderBy != nil {
			p.line()
			p.s("ORDER BY ")
			p.orderItems(q.OrderBy)
		}
		if q.Limit != nil {
			p.line()
			p.s("LIMIT ")
			p.expr(q.Limit, levelOr)
		}
		if q.Offset != nil {
			p.line()
			p.s("OFFSET ")
			p.expr(q.Offset, levelOr)
		}
	case *SetOp:
		level := setLevel(q)
		p.operand(q.Left, level)
		p.line()
		p.s([...]string{"", "UNION", "INTERSECT", "EXCEPT"}[q.Kind])
		p.opt(q.All, " ALL")
		p.line()
		p.operand(q.Right, level+1)
	case *Values:
		p.s("VALUES ")
		join(p, q.Rows, func(row []Expr) {
			p.s("(")
			p.exprs(row)
			p.s(")")
		})
	case *TableQuery:
		p.s("TABLE ", q.Name.String())
	case *Select:
		p.selectQuery(q)
	}
}

func setLevel(s *SetOp) int {
	if s.Kind == Intersect {
		return setIntersect
	}
	return setLoosest
}

// operand writes a query where only set operations of this level or tighter may stand without parentheses.
func (p *printer) operand(q Query, least int) {
	switch q := q.(type) {
	case *With, *Ordered:
		p.subquery(q)
		return
	case *SetOp:
		if setLevel(q) < least {
			p.subquery(q)
			return
		}
	}
	p.query(q)
}

func (p *printer) items(items []SelectItem) {
	join(p, items, func(item SelectItem) {
		p.expr(item.X, levelOr)
		p.opt(item.Alias.Text != "", " AS "+quoteIdent(item.Alias.Text))
	})
}

func (p *printer) orderItems(items []OrderItem) {
	join(p, items, func(o OrderItem) {
		p.expr(o.X, levelOr)
		p.opt(o.Desc, " DESC")
		p.s([...]string{"", " NULLS FIRST", " NULLS LAST"}[o.Nulls])
	})
}

// clause begins a line with a keyword.
func (p *printer) clause(word string, x Expr) {
	if x != nil {
		p.line()
		p.s(word, " ")
		p.expr(x, levelOr)
	}
}

func (p *printer) selectQuery(q *Select) {
	p.s("SELECT")
	p.hints(q.Hints)
	p.opt(q.Distinct, " DISTINCT")
	p.s(" ")
	p.items(q.Items)
	if q.From != nil {
		p.line()
		p.s("FROM ")
		join(p, q.From, p.tableRef)
	}
	p.clause("WHERE", q.Where)
	if g := q.GroupBy; g != nil {
		p.line()
		p.s("GROUP BY ")
		p.opt(g.Distinct, "DISTINCT ")
		join(p, g.Items, p.groupItem)
	}
	p.clause("HAVING", q.Having)
	if q.Windows != nil {
		p.line()
		p.s("WINDOW ")
		join(p, q.Windows, func(w NamedWindow) {
			p.s(quoteIdent(w.Name.Text), " AS ")
			p.windowSpec(w.Window)
		})
	}
	p.clause("QUALIFY", q.Qualify)
}

func (p *printer) groupItem(g GroupItem) {
	switch g.Kind {
	case GroupRollup:
		p.s("ROLLUP ")
	case GroupCube:
		p.s("CUBE ")
	case GroupingSets:
		p.s("GROUPING SETS ")
	default:
		if len(g.Exprs) == 1 {
			p.expr(g.Exprs[0], levelOr)
			return
		}
	}
	p.s("(")
	p.exprs(g.Exprs)
	join(p, g.Items, p.groupItem)
	p.s(")")
}

func (p *printer) hints(hints []Hint) {
	if hints == nil {
		return
	}
	p.s(" /*+ ")
	join(p, hints, func(h Hint) {
		p.s(quoteIdent(h.Name.Text))
		if h.Args != nil {
			p.s("(")
			join(p, h.Args, func(a HintArg) {
				p.hintText(a.Key)
				if a.Value != nil {
					p.s(" = ")
					p.hintText(*a.Value)
				}
			})
			p.s(")")
		}
	})
	p.s(" */")
}

func (p *printer) hintText(t HintText) {
	switch t.Kind {
	case HintString:
		p.s(quoteString(t.Text))
	case HintNumber:
		p.s(t.Text)
	default:
		parts := strings.Split(t.Text, ".")
		for _, part := range parts {
			if !plainIdent(part) {
				parts = []string{t.Text}
				break
			}
		}
		for i, part := range parts {
			p.opt(i > 0, ".")
			p.s(quoteIdent(part))
		}
	}
}

func (p *printer) alias(a Alias) {
	if a.Name.Text != "" {
		p.s(" AS ", quoteIdent(a.Name.Text))
		if a.Columns != nil {
			p.s(" ")
			p.idents(a.Columns)
		}
	}
}

func (p *printer) sample(s *Sample) {
	if s == nil {
		return
	}
	p.s(" TABLESAMPLE ", s.Method, " (")
	p.expr(s.Percent, levelOr)
	p.s(")")
	if s.Seed != nil {
		p.s(" REPEATABLE (")
		p.expr(s.Seed, levelOr)
		p.s(")")
	}
}

func (p *printer) tableRef(t TableRef) {
	switch t := t.(type) {
	case *Table:
		p.s(t.Name.String())
		p.hints(t.Hints)
		if t.AsOf != nil {
			p.s(" FOR SYSTEM_TIME AS OF ")
			p.expr(t.AsOf, levelConcat)
		}
		p.sample(t.Sample)
		p.alias(t.Alias)
	case *Derived:
		p.opt(t.Lateral, "LATERAL ")
		p.subquery(t.Query)
		p.sample(t.Sample)
		p.alias(t.Alias)
	case *TableFunction:
		p.opt(t.Lateral, "LATERAL ")
		p.s("TABLE(")
		p.call(t.Call)
		p.s(")")
		p.alias(t.Alias)
	case *Unnest:
		p.opt(t.Lateral, "LATERAL ")
		p.s("UNNEST(")
		p.exprs(t.Args)
		p.s(")")
		p.opt(t.Ordinality, " WITH ORDINALITY")
		p.alias(t.Alias)
	case *Join:
		p.join(t)
	case *MatchRecognize:
		p.matchRecognize(t)
	}
}

func (p *printer) join(j *Join) {
	p.tableRef(j.Left)
	p.line()
	p.opt(j.Natural, "NATURAL ")
	p.s([...]string{"", "", "LEFT ", "RIGHT ", "FULL ", "CROSS ", "LEFT SEMI ", "LEFT ANTI "}[j.Kind], "JOIN ")
	if _, ok := j.Right.(*Join); ok {
		p.nested(func() { p.tableRef(j.Right) })
	} else {
		p.tableRef(j.Right)
	}
	if j.On != nil {
		p.s(" ON ")
		p.expr(j.On, levelOr)
	}
	if j.Using != nil {
		p.s(" USING ")
		p.idents(j.Using)
	}
}

func (p *printer) matchRecognize(m *MatchRecognize) {
	if _, ok := m.Input.(*Join); ok {
		p.nested(func() { p.tableRef(m.Input) })
	} else {
		p.tableRef(m.Input)
	}
	p.s(" MATCH_RECOGNIZE ")
	p.nested(func() { p.matchClauses(m) })
	p.alias(m.Alias)
}

func (p *printer) matchClauses(m *MatchRecognize) {
	if m.PartitionBy != nil {
		p.s("PARTITION BY ")
		p.exprs(m.PartitionBy)
		p.line()
	}
	if m.OrderBy != nil {
		p.s("ORDER BY ")
		p.orderItems(m.OrderBy)
		p.line()
	}
	if m.Measures != nil {
		p.s("MEASURES ")
		join(p, m.Measures, func(x Measure) {
			p.expr(x.X, levelOr)
			p.s(" AS ", quoteIdent(x.Alias.Text))
		})
		p.line()
	}
	if m.RowsPerMatch != RowsUnstated {
		p.s([...]string{"", "ONE ROW PER MATCH", "ALL ROWS PER MATCH", "ALL ROWS PER MATCH SHOW EMPTY MATCHES",
			"ALL ROWS PER MATCH OMIT EMPTY MATCHES", "ALL ROWS PER MATCH WITH UNMATCHED ROWS"}[m.RowsPerMatch])
		p.line()
	}
	if s := m.Skip; s != nil {
		p.s("AFTER MATCH SKIP ", [...]string{"", "PAST LAST ROW", "TO NEXT ROW", "TO FIRST ", "TO LAST "}[s.Kind])
		p.opt(s.Kind >= SkipToFirst, quoteIdent(s.Variable.Text))
		p.line()
	}
	p.s("PATTERN (")
	p.pattern(m.Pattern)
	p.s(")")
	p.opt(m.Within != nil, " WITHIN ")
	if m.Within != nil {
		p.expr(m.Within, levelOr)
	}
	for i, s := range m.Subsets {
		if i == 0 {
			p.line()
			p.s("SUBSET ")
		} else {
			p.s(", ")
		}
		p.s(quoteIdent(s.Name.Text), " = ")
		p.idents(s.Items)
	}
	for i, d := range m.Defines {
		if i == 0 {
			p.line()
			p.s("DEFINE ")
		} else {
			p.s(", ")
		}
		p.s(quoteIdent(d.Name.Text), " AS ")
		p.expr(d.Cond, levelOr)
	}
}

func (p *printer) pattern(x Pattern) {
	switch x := x.(type) {
	case *PatternVar:
		p.s(quoteIdent(x.Name.Text))
	case *PatternSeq:
		if len(x.Items) == 0 {
			p.s("()")
		}
		for i, item := range x.Items {
			p.opt(i > 0, " ")
			p.patternOperand(item, false)
		}
	case *PatternAlt:
		for i, item := range x.Items {
			p.opt(i > 0, " | ")
			if _, ok := item.(*PatternAlt); ok {
				p.patternOperand(item, false)
			} else {
				p.pattern(item)
			}
		}
	case *PatternRepeat:
		p.patternOperand(x.X, true)
		p.s(quantifier(x))
		p.opt(x.Reluctant, "?")
	case *PatternPermute:
		p.s("PERMUTE(")
		join(p, x.Items, p.pattern)
		p.s(")")
	case *PatternExclude:
		p.s("{- ")
		p.pattern(x.X)
		p.s(" -}")
	case *PatternAnchor:
		if x.End {
			p.s("$")
		} else {
			p.s("^")
		}
	}
}

// patternOperand writes a pattern as a part of a sequence or below a quantifier.
func (p *printer) patternOperand(x Pattern, repeated bool) {
	seq, isSeq := x.(*PatternSeq)
	_, isAlt := x.(*PatternAlt)
	_, isRepeat := x.(*PatternRepeat)
	if isSeq && len(seq.Items) > 0 || isAlt || repeated && isRepeat {
		p.s("(")
		p.pattern(x)
		p.s(")")
		return
	}
	p.pattern(x)
}

func quantifier(r *PatternRepeat) string {
	switch {
	case r.Min == 0 && r.Max == -1:
		return "*"
	case r.Min == 1 && r.Max == -1:
		return "+"
	case r.Min == 0 && r.Max == 1:
		return "?"
	case r.Max == -1:
		return "{" + number10(r.Min) + ",}"
	case r.Min == r.Max:
		return "{" + number10(r.Min) + "}"
	}
	return "{" + number10(r.Min) + "," + number10(r.Max) + "}"
}
