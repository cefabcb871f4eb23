package parser

// String is the type's keyword; "" for TypeUser.
func (k TypeKind) String() string {
	return [...]string{"", "CHAR", "VARCHAR", "STRING", "BINARY", "VARBINARY", "BYTES", "BOOLEAN", "DECIMAL", "TINYINT", "SMALLINT", "INT",
		"BIGINT", "FLOAT", "DOUBLE", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_LTZ", "TIMESTAMP", "INTERVAL", "ARRAY", "MAP", "MULTISET",
		"ROW", "RAW", "VARIANT", "NULL", "UUID", "JSON"}[k]
}

func (p *printer) dataType(t *DataType) {
	p.s(t.Kind.String())
	digits := func(n *int) {
		if n != nil {
			p.s("(", number10(*n), ")")
		}
	}
	switch t.Kind {
	case TypeUser:
		for i, part := range t.Name {
			p.opt(i > 0, ".")
			if _, taken := simpleType(part.Text); taken || len(t.Name) == 1 { // unquoted, it might look like a misspelt type
				p.s(backticks(part.Text))
			} else {
				p.s(quoteIdent(part.Text))
			}
		}
	case TypeDecimal:
		if t.Precision != nil {
			p.s("(", number10(*t.Precision))
			if t.Scale != nil {
				p.s(", ", number10(*t.Scale))
			}
			p.s(")")
		}
	case TypeInterval:
		if t.Interval != nil {
			p.s(" ")
			p.qualifier(t.Interval)
		}
	case TypeArray, TypeMultiset:
		p.s("<")
		p.dataType(t.Elem)
		p.s(">")
	case TypeMap:
		p.s("<")
		p.dataType(t.Key)
		p.s(", ")
		p.dataType(t.Elem)
		p.s(">")
	case TypeRow:
		p.s("<")
		join(p, t.Fields, func(f RowField) {
			p.s(quoteIdent(f.Name.Text), " ")
			p.dataType(f.Type)
			if f.Comment != nil {
				p.s(" ", quoteString(f.Comment.Text))
			}
		})
		p.s(">")
	case TypeRaw:
		p.s("(")
		join(p, t.Raw, func(l Literal) { p.s(quoteString(l.Text)) })
		p.s(")")
	default:
		digits(t.Length)
		digits(t.Precision)
		p.opt(t.Kind == TypeTimestampTZ, " WITH TIME ZONE")
	}
	p.opt(t.NotNull, " NOT NULL")
}

func (p *printer) qualifier(q *IntervalQualifier) {
	p.s(string(q.From))
	if q.Precision != nil {
		p.s("(", number10(*q.Precision))
		if q.Fraction != nil && q.To == "" {
			p.s(", ", number10(*q.Fraction))
		}
		p.s(")")
	}
	if q.To != "" {
		p.s(" TO ", string(q.To))
		if q.Fraction != nil {
			p.s("(", number10(*q.Fraction), ")")
		}
	}
}
