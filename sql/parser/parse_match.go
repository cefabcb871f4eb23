package parser

// maxRepeat bounds the numbers of a quantifier.
const maxRepeat = 1_000_000

func (p *parser) matchRecognize(input TableRef) (TableRef, error) {
	m := &MatchRecognize{Pos: input.Position(), Input: input}
	p.i += 2
	var err error
	if p.acceptWords("PARTITION", "BY") {
		if m.PartitionBy, err = p.exprs(); err != nil {
			return nil, err
		}
	}
	if p.acceptWords("ORDER", "BY") {
		if m.OrderBy, err = p.orderItems(); err != nil {
			return nil, err
		}
	}
	if p.acceptWord("MEASURES") {
		if err = p.list(func() error { return p.measure(m) }); err != nil {
			return nil, err
		}
	}
	if m.RowsPerMatch, err = p.rowsPerMatch(); err != nil {
		return nil, err
	}
	if p.isWord("AFTER") {
		if m.Skip, err = p.skip(); err != nil {
			return nil, err
		}
	}
	if !p.acceptWord("PATTERN") {
		return nil, p.expected("PATTERN", "PARTITION", "ORDER", "MEASURES", "ONE", "ALL", "AFTER", "PATTERN")
	}
	if err = p.symbol("(", "and the pattern"); err != nil {
		return nil, err
	}
	if m.Pattern, err = p.pattern(); err != nil {
		return nil, err
	}
	if err = p.symbol(")", ""); err != nil {
		return nil, err
	}
	if p.acceptWord("WITHIN") {
		if m.Within, err = p.expr(); err != nil {
			return nil, err
		}
	}
	if p.acceptWord("SUBSET") {
		err = p.list(func() error {
			var s Subset
			var err error
			if s.Name, err = p.ident("the subset's name"); err != nil {
				return err
			}
			if err = p.symbol("=", ""); err != nil {
				return err
			}
			s.Items, err = p.idents("a variable")
			m.Subsets = append(m.Subsets, s)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if p.acceptWord("DEFINE") {
		err = p.list(func() error {
			var d Define
			var err error
			if d.Name, err = p.ident("a variable"); err != nil {
				return err
			}
			if err = p.words("AS"); err != nil {
				return err
			}
			d.Cond, err = p.expr()
			m.Defines = append(m.Defines, d)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if !p.accept(")") {
		return nil, p.expected("WITHIN, SUBSET, DEFINE or )", "WITHIN", "SUBSET", "DEFINE")
	}
	m.Alias, err = p.tableAlias()
	return m, err
}

func (p *parser) measure(m *MatchRecognize) error {
	x, err := p.expr()
	if err != nil {
		return err
	}
	if !p.acceptWord("AS") {
		return p.expected("AS and the measure's name", "AS")
	}
	alias, err := p.ident("the measure's name")
	m.Measures = append(m.Measures, Measure{x, alias})
	return err
}

func (p *parser) rowsPerMatch() (RowsPerMatch, error) {
	switch {
	case p.acceptWord("ONE"):
		return OneRow, p.words("ROW", "PER", "MATCH")
	case p.acceptWord("ALL"):
		if err := p.words("ROWS", "PER", "MATCH"); err != nil {
			return 0, err
		}
		switch {
		case p.acceptWords("SHOW", "EMPTY", "MATCHES"):
			return AllRowsShowEmpty, nil
		case p.acceptWords("OMIT", "EMPTY", "MATCHES"):
			return AllRowsOmitEmpty, nil
		case p.acceptWords("WITH", "UNMATCHED", "ROWS"):
			return AllRowsWithUnmatched, nil
		}
		return AllRows, nil
	}
	return RowsUnstated, nil
}

func (p *parser) skip() (*Skip, error) {
	s := &Skip{Pos: p.take().pos, Kind: SkipToLast}
	if err := p.words("MATCH", "SKIP"); err != nil {
		return nil, err
	}
	switch {
	case p.acceptWords("PAST", "LAST", "ROW"):
		s.Kind = SkipPastLastRow
		return s, nil
	case p.acceptWords("TO", "NEXT", "ROW"):
		s.Kind = SkipToNextRow
		return s, nil
	case !p.acceptWord("TO"):
		return nil, p.expected("PAST LAST ROW or TO", "PAST", "TO")
	}
	// FIRST and LAST may be variables themselves.
	if n := p.ahead(1); n.kind == quoted || n.kind == word && !n.isWord("PATTERN") {
		if p.acceptWord("FIRST") {
			s.Kind = SkipToFirst
		} else {
			p.acceptWord("LAST")
		}
	}
	var err error
	s.Variable, err = p.ident("a variable")
	return s, err
}

// pattern reads a pattern up to what cannot belong to it.
func (p *parser) pattern() (Pattern, error) {
	outer, err := p.enter()
	if err != nil {
		return nil, err
	}
	at := p.peek().pos
	var alternatives []Pattern
	for {
		seq, err := p.sequence()
		if err != nil {
			return nil, err
		}
		alternatives = append(alternatives, seq)
		if !p.accept("|") {
			break
		}
	}
	p.leave(outer)
	if len(alternatives) == 1 {
		return alternatives[0], nil
	}
	return &PatternAlt{at, alternatives}, nil
}

func (p *parser) sequence() (Pattern, error) {
	s := &PatternSeq{Pos: p.peek().pos}
	for {
		t := p.peek()
		if t.isSymbol(")") || t.isSymbol("|") || t.isSymbol("-") || t.isSymbol(",") || t.kind == end {
			break
		}
		x, err := p.patternFactor()
		if err != nil {
			return nil, err
		}
		s.Items = append(s.Items, x)
	}
	switch len(s.Items) {
	case 0:
		return nil, p.expected("a variable of the pattern")
	case 1:
		return s.Items[0], nil
	}
	return s, nil
}

func (p *parser) patternFactor() (Pattern, error) {
	x, err := p.patternPrimary()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	r := &PatternRepeat{Pos: x.Position(), X: x, Max: -1}
	switch {
	case p.accept("*"):
	case p.accept("+"):
		r.Min = 1
	case p.accept("?"):
		r.Max = 1
	case t.isSymbol("{") && !p.ahead(1).isSymbol("-"):
		p.i++
		if err := p.repeat(r); err != nil {
			return nil, err
		}
	default:
		return x, nil
	}
	r.Reluctant = p.accept("?")
	if n := p.peek(); n.isSymbol("*") || n.isSymbol("+") || n.isSymbol("?") || n.isSymbol("{") && !p.ahead(1).isSymbol("-") {
		return nil, p.fail(n.pos, "a quantifier stands behind a quantifier").WithHint("put parentheses around what the first one repeats")
	}
	return r, nil
}

// repeat reads {n}, {n,}, {,m} and {n,m} behind the brace.
func (p *parser) repeat(r *PatternRepeat) error {
	at := p.peek().pos
	var low, high *int
	var err error
	if !p.isSymbol(",") {
		if low, err = p.digits("how often"); err != nil {
			return err
		}
		r.Min, r.Max = *low, *low
	}
	if p.accept(",") {
		r.Max = -1
		if low == nil || !p.isSymbol("}") {
			if high, err = p.digits("how often at most"); err != nil {
				return err
			}
			r.Max = *high
		}
	}
	if r.Min > maxRepeat || r.Max > maxRepeat {
		return p.fail(at, "a quantifier goes up to %d", maxRepeat)
	}
	if r.Max >= 0 && r.Min > r.Max {
		return p.fail(at, "the least number of repetitions is above the most")
	}
	return p.symbol("}", "")
}

func (p *parser) patternPrimary() (Pattern, error) {
	t := p.peek()
	switch {
	case t.isSymbol("("):
		p.i++
		if p.accept(")") {
			return &PatternSeq{Pos: t.pos}, nil
		}
		x, err := p.pattern()
		if err != nil {
			return nil, err
		}
		return x, p.symbol(")", "")
	case t.isSymbol("{") && p.ahead(1).isSymbol("-"):
		p.i += 2
		x, err := p.pattern()
		if err != nil {
			return nil, err
		}
		if err := p.symbol("-", "}"); err != nil {
			return nil, err
		}
		return &PatternExclude{t.pos, x}, p.symbol("}", "")
	case t.isSymbol("^"), t.isSymbol("$"):
		p.i++
		return &PatternAnchor{t.pos, t.text == "$"}, nil
	case t.isWord("PERMUTE") && p.ahead(1).isSymbol("("):
		p.i++
		perm := &PatternPermute{Pos: t.pos}
		err := p.parens("", func() error {
			x, err := p.pattern()
			perm.Items = append(perm.Items, x)
			return err
		})
		return perm, err
	}
	name, err := p.ident("a variable of the pattern")
	return &PatternVar{name.Pos, name}, err
}
