package parser

import (
	"strings"

	"github.com/weirstream/weir/internal/nearest"
)

// typeOf reads a data type. Behind a cast with colons NOT NULL and NULL belong to what follows; full says that they
// belong to the type.
func (p *parser) typeOf(full bool) (*DataType, error) {
	outer, err := p.enter()
	if err != nil {
		return nil, err
	}
	t, err := p.typeBase()
	if err != nil {
		return nil, err
	}
	for {
		if full {
			switch {
			case p.acceptWords("NOT", "NULL"):
				t.NotNull = true
			case p.isWord("NULL") && !p.ahead(1).isWord("ON"):
				p.i++
			}
		}
		kind := TypeArray
		switch {
		case p.isSymbol("[") && p.ahead(1).isSymbol("]"):
			p.i += 2
		case full && p.acceptWord("ARRAY"):
		case full && p.acceptWord("MULTISET"):
			kind = TypeMultiset
		default:
			p.leave(outer)
			return t, nil
		}
		t = &DataType{Pos: t.Pos, Kind: kind, Elem: t}
		if err := p.chain(); err != nil {
			return nil, err
		}
	}
}

// simpleType gives the kind of a type by its one word.
func simpleType(w string) (TypeKind, bool) {
	switch strings.ToUpper(w) {
	case "CHAR", "CHARACTER":
		return TypeChar, true
	case "VARCHAR":
		return TypeVarchar, true
	case "STRING", "TEXT":
		return TypeString, true
	case "BINARY":
		return TypeBinary, true
	case "VARBINARY":
		return TypeVarbinary, true
	case "BYTES", "BYTEA":
		return TypeBytes, true
	case "BOOLEAN", "BOOL":
		return TypeBoolean, true
	case "DECIMAL", "DEC", "NUMERIC":
		return TypeDecimal, true
	case "TINYINT":
		return TypeTinyint, true
	case "SMALLINT", "INT2":
		return TypeSmallint, true
	case "INT", "INTEGER", "INT4":
		return TypeInt, true
	case "BIGINT", "INT8":
		return TypeBigint, true
	case "FLOAT", "REAL", "FLOAT4":
		return TypeFloat, true
	case "DOUBLE", "FLOAT8":
		return TypeDouble, true
	case "DATE":
		return TypeDate, true
	case "TIME":
		return TypeTime, true
	case "TIMESTAMP":
		return TypeTimestamp, true
	case "TIMESTAMP_LTZ", "TIMESTAMPTZ":
		return TypeTimestampLTZ, true
	case "INTERVAL":
		return TypeInterval, true
	case "ARRAY":
		return TypeArray, true
	case "MAP":
		return TypeMap, true
	case "MULTISET":
		return TypeMultiset, true
	case "ROW":
		return TypeRow, true
	case "RAW":
		return TypeRaw, true
	case "VARIANT":
		return TypeVariant, true
	case "NULL":
		return TypeNull, true
	case "UUID":
		return TypeUUID, true
	case "JSON", "JSONB":
		return TypeJSON, true
	}
	return TypeUser, false
}

// typeWords are the types that a misspelt one is compared with.
func typeWords() []string {
	return []string{"CHAR", "VARCHAR", "STRING", "TEXT", "BINARY", "VARBINARY", "BYTES", "BYTEA", "BOOLEAN", "DECIMAL", "NUMERIC", "TINYINT",
		"SMALLINT", "INT", "INTEGER", "BIGINT", "FLOAT", "REAL", "DOUBLE", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_LTZ", "TIMESTAMPTZ",
		"INTERVAL", "ARRAY", "MAP", "MULTISET", "ROW", "VARIANT", "UUID", "JSON", "JSONB"}
}

func (p *parser) typeBase() (*DataType, error) {
	first := p.peek()
	t := &DataType{Pos: first.pos}
	known := false
	if first.kind == word {
		t.Kind, known = simpleType(first.text)
	}
	if !known {
		if first.kind != quoted && (first.kind != word || reserved(first.text)) {
			return nil, p.expected("a data type")
		}
		var err error
		if t.Name, err = p.name("a data type"); err != nil {
			return nil, err
		}
		if near := nearest.Of(first.text, typeWords()); near != "" && first.kind == word && len(t.Name) == 1 {
			return nil, p.fail(first.pos, "there is no type %s", clip(first.text)).WithHint("did you mean %s?", near)
		}
		return t, nil
	}
	p.i++
	var err error
	switch t.Kind {
	case TypeChar, TypeVarchar, TypeBinary, TypeVarbinary:
		if t.Kind == TypeChar && p.acceptWord("VARYING") {
			t.Kind = TypeVarchar
		}
		t.Length, err = p.oneDigits("the length")
	case TypeDecimal:
		if p.accept("(") {
			if t.Precision, err = p.digits("the number of digits"); err == nil && p.accept(",") {
				t.Scale, err = p.digits("the number of digits behind the point")
			}
			if err == nil {
				err = p.closing()
			}
		}
	case TypeFloat:
		if first.isWord("FLOAT") && p.isSymbol("(") {
			err = p.expected("FLOAT without a precision").WithHint("FLOAT has 32 bits; DOUBLE has 64")
		}
	case TypeDouble:
		p.acceptWord("PRECISION")
	case TypeTime, TypeTimestamp, TypeTimestampLTZ:
		if t.Precision, err = p.oneDigits("the number of digits behind the seconds"); err == nil && t.Kind != TypeTimestampLTZ {
			p.timeZone(t)
		}
	case TypeInterval:
		if u := p.peek(); u.kind == word && intervalUnit(u.text) != "" {
			t.Interval, err = p.intervalQualifier()
		}
	case TypeArray, TypeMultiset:
		if err = p.symbol("<", "and the type of the elements"); err == nil {
			if t.Elem, err = p.typeOf(true); err == nil {
				err = p.symbol(">", "")
			}
		}
	case TypeMap:
		err = p.mapType(t)
	case TypeRow:
		err = p.rowType(t)
	case TypeRaw:
		err = p.parens("and the class", func() error {
			l, err := p.literal("a class")
			t.Raw = append(t.Raw, l)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// oneDigits reads a number in parentheses if one follows.
func (p *parser) oneDigits(what string) (*int, error) {
	if !p.accept("(") {
		return nil, nil
	}
	n, err := p.digits(what)
	if err != nil {
		return nil, err
	}
	return n, p.symbol(")", "")
}

func (p *parser) timeZone(t *DataType) {
	switch {
	case p.acceptWords("WITHOUT", "TIME", "ZONE"):
	case t.Kind == TypeTimestamp && p.acceptWords("WITH", "LOCAL", "TIME", "ZONE"):
		t.Kind = TypeTimestampLTZ
	case t.Kind == TypeTimestamp && p.acceptWords("WITH", "TIME", "ZONE"):
		t.Kind = TypeTimestampTZ
	}
}

func (p *parser) mapType(t *DataType) error {
	if err := p.symbol("<", "and the types of key and value"); err != nil {
		return err
	}
	var err error
	if t.Key, err = p.typeOf(true); err != nil {
		return err
	}
	if err = p.symbol(",", "and the type of the values"); err != nil {
		return err
	}
	if t.Elem, err = p.typeOf(true); err != nil {
		return err
	}
	return p.symbol(">", "")
}

// rowType reads the fields of a row, in <> or ().
func (p *parser) rowType(t *DataType) error {
	if p.accept("<>") {
		return nil
	}
	last := ")"
	if p.accept("<") {
		last = ">"
	} else if err := p.symbol("(", "or < and the fields"); err != nil {
		return err
	}
	if p.accept(last) {
		return nil
	}
	err := p.list(func() error {
		var f RowField
		var err error
		if f.Name, err = p.anyIdent("a field's name"); err != nil {
			return err
		}
		if f.Type, err = p.typeOf(true); err != nil {
			return err
		}
		if p.peek().kind == str {
			l := p.take()
			f.Comment = &Literal{l.text, l.pos}
		}
		t.Fields = append(t.Fields, f)
		return nil
	})
	if err != nil {
		return err
	}
	if !p.accept(last) {
		return p.expected(", or "+last, "NOT")
	}
	return nil
}
