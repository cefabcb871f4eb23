package parser

// ParseStatement reads one statement, with or without a semicolon behind it.
func ParseStatement(file, text string) (Statement, error) {
	p, err := start(file, text)
	if err != nil {
		return nil, err
	}
	s, err := p.statement()
	if err == nil {
		p.accept(";")
		if p.peek().kind != end {
			err = p.notEnded()
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// onConflict reads what follows ON CONFLICT.
func (p *parser) onConflict(s *Insert) (err error) {
	if p.isSymbol("(") {
		if s.ConflictKey, err = p.idents("a column of the key"); err != nil {
			return err
		}
	}
	if err = p.words("DO"); err != nil {
		return err
	}
	w, err := p.choice("NOTHING", "UPDATE", "ERROR", "DEDUPLICATE")
	if err != nil {
		return err
	}
	s.OnConflict = map[string]OnConflict{"NOTHING": ConflictNothing, "ERROR": ConflictError, "DEDUPLICATE": ConflictDeduplicate, "UPDATE": ConflictUpdate}[w]
	if s.OnConflict != ConflictUpdate {
		return nil
	}
	if err = p.words("SET"); err != nil {
		return err
	}
	if s.ConflictSet, err = p.assigned(); err == nil && p.acceptWord("WHERE") {
		s.ConflictWhere, err = p.expr()
	}
	return err
}

// assigned reads what follows SET: column = value, ...
func (p *parser) assigned() ([]Assignment, error) {
	var out []Assignment
	err := p.list(func() error {
		var a Assignment
		var err error
		if a.Column, err = p.ident("a column's name"); err != nil {
			return err
		}
		if err = p.symbol("=", ""); err != nil {
			return err
		}
		a.Value, err = p.expr()
		out = append(out, a)
		return err
	})
	return out, err
}

// returning reads RETURNING items if it follows.
func (p *parser) returning() ([]SelectItem, error) {
	if !p.acceptWord("RETURNING") {
		return nil, nil
	}
	var out []SelectItem
	err := p.list(func() error {
		item, err := p.selectItem()
		out = append(out, item)
		return err
	})
	return out, err
}
