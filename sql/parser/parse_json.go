package parser

// jsonPath reads the arguments of JSON_EXISTS, JSON_VALUE and JSON_QUERY.
func (p *parser) jsonPath(at Pos, fn string) (Expr, error) {
	x, err := p.expr()
	if err != nil {
		return nil, err
	}
	if err = p.symbol(",", "and a path"); err != nil {
		return nil, err
	}
	path, err := p.expr()
	if err != nil {
		return nil, err
	}
	switch fn {
	case "JSON_EXISTS":
		e := &JSONExists{Pos: at, X: x, Path: path}
		for _, b := range []JSONBehavior{JSONTrue, JSONFalse, JSONUnknown, JSONError} {
			if p.acceptWords(b.words()...) {
				e.OnError = b
				return e, p.words("ON", "ERROR")
			}
		}
		return e, nil
	case "JSON_VALUE":
		return p.jsonValue(&JSONValue{Pos: at, X: x, Path: path})
	}
	return p.jsonQuery(&JSONQuery{Pos: at, X: x, Path: path})
}

func (p *parser) jsonValue(v *JSONValue) (Expr, error) {
	var err error
	if p.acceptWord("RETURNING") {
		if v.Returning, err = p.typeOf(false); err != nil {
			return nil, err
		}
	}
	for range 2 {
		var b JSONBehavior
		var x Expr
		switch {
		case p.acceptWord("DEFAULT"):
			b = JSONDefault
			if x, err = p.expr(); err != nil {
				return nil, err
			}
		case p.acceptWord("NULL"):
			b = JSONNull
		case p.acceptWord("ERROR"):
			b = JSONError
		default:
			return v, nil
		}
		if err = p.words("ON"); err != nil {
			return nil, err
		}
		if v.OnEmpty == JSONUnstated && v.OnError == JSONUnstated && p.acceptWord("EMPTY") {
			v.OnEmpty, v.OnEmptyDefault = b, x
			continue
		}
		if err = p.words("ERROR"); err != nil {
			return nil, err
		}
		v.OnError, v.OnErrorDefault = b, x
		break
	}
	return v, nil
}

func (p *parser) jsonQuery(q *JSONQuery) (Expr, error) {
	var err error
	if p.acceptWord("RETURNING") {
		if q.Returning, err = p.typeOf(false); err != nil {
			return nil, err
		}
	}
	with := p.isWord("WITH")
	if with || p.isWord("WITHOUT") {
		p.i++
		q.Wrapper = WrapperNever
		if with {
			q.Wrapper = WrapperAlways
			if p.acceptWord("CONDITIONAL") {
				q.Wrapper = WrapperConditional
			} else {
				p.acceptWord("UNCONDITIONAL")
			}
		}
		p.acceptWord("ARRAY")
		if err = p.words("WRAPPER"); err != nil {
			return nil, err
		}
	}
	for range 2 {
		found := JSONUnstated
		for _, b := range []JSONBehavior{JSONNull, JSONError, JSONEmptyArray, JSONEmptyObject} {
			if found == JSONUnstated && p.acceptWords(b.words()...) {
				found = b
			}
		}
		if found == JSONUnstated {
			return q, nil
		}
		if err = p.words("ON"); err != nil {
			return nil, err
		}
		if q.OnEmpty == JSONUnstated && q.OnError == JSONUnstated && p.acceptWord("EMPTY") {
			q.OnEmpty = found
			continue
		}
		if err = p.words("ERROR"); err != nil {
			return nil, err
		}
		q.OnError = found
		break
	}
	return q, nil
}

// words are the behaviour's keywords.
func (b JSONBehavior) words() []string {
	switch b {
	case JSONNull:
		return []string{"NULL"}
	case JSONError:
		return []string{"ERROR"}
	case JSONDefault:
		return []string{"DEFAULT"}
	case JSONTrue:
		return []string{"TRUE"}
	case JSONFalse:
		return []string{"FALSE"}
	case JSONUnknown:
		return []string{"UNKNOWN"}
	case JSONEmptyArray:
		return []string{"EMPTY", "ARRAY"}
	case JSONEmptyObject:
		return []string{"EMPTY", "OBJECT"}
	}
	return nil
}

// jsonEntries reads [KEY] k VALUE v or k : v, one of them for the aggregate.
func (p *parser) jsonEntries(c *Call, one bool) error {
	if !one && (p.isSymbol(")") || p.isWords("NULL", "ON", "NULL") || p.isWords("ABSENT", "ON", "NULL")) {
		c.OnNull = p.onNull()
		return nil
	}
	for more := true; more; more = !one && p.accept(",") {
		if p.isWord("KEY") && p.keyIsKeyword() {
			p.i++
		}
		k, err := p.expr()
		if err != nil {
			return err
		}
		if !p.acceptWord("VALUE") && !p.accept(":") && !p.accept(",") {
			return p.expected("VALUE and the key's value", "VALUE")
		}
		v, err := p.expr()
		if err != nil {
			return err
		}
		c.Args = append(c.Args, k, v)
	}
	c.OnNull = p.onNull()
	return nil
}

// keyIsKeyword tells the keyword KEY from a column of that name.
func (p *parser) keyIsKeyword() bool {
	switch next := p.ahead(1); {
	case next.isWord("VALUE"):
		return p.ahead(2).isWord("VALUE")
	case next.kind == symbol:
		return next.text == "("
	default:
		return true
	}
}
