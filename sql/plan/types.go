package plan

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// typeOf is the engine's type for one that was written.
func (b *binder) typeOf(d *parser.DataType) (row.Type, error) {
	t, err := b.plainType(d)
	t.NotNull = d.NotNull
	return t, err
}

func number(p *int, or int) int {
	if p == nil {
		return or
	}
	return *p
}

func (b *binder) plainType(d *parser.DataType) (row.Type, error) {
	t := row.Type{}
	length := func(k row.Kind, fixed bool) (row.Type, error) {
		n := number(d.Length, 1)
		if n < 1 {
			return t, b.fail(errs.SQLTypeMismatch, d.Pos, "a length of %d", n).WithHint("lengths begin at 1")
		}
		return row.Type{Kind: k, Precision: n, Fixed: fixed}, nil
	}
	fraction := func(k row.Kind, or int) (row.Type, error) {
		p := number(d.Precision, or)
		if p < 0 || p > 9 {
			return t, b.fail(errs.SQLTypeMismatch, d.Pos, "%d digits behind the seconds' point", p).WithHint("0 to 9 are possible")
		}
		return row.Type{Kind: k, Precision: p}, nil
	}
	elem := func(x *parser.DataType) (*row.Type, error) {
		e, err := b.typeOf(x)
		return &e, err
	}
	var err error
	switch d.Kind {
	case parser.TypeChar:
		return length(row.String, true)
	case parser.TypeVarchar:
		if d.Length == nil {
			return row.Type{Kind: row.String}, nil
		}
		return length(row.String, false)
	case parser.TypeString:
		t.Kind = row.String
	case parser.TypeBinary:
		return length(row.Bytes, true)
	case parser.TypeVarbinary:
		if d.Length == nil {
			return row.Type{Kind: row.Bytes}, nil
		}
		return length(row.Bytes, false)
	case parser.TypeBytes:
		t.Kind = row.Bytes
	case parser.TypeBoolean:
		t.Kind = row.Boolean
	case parser.TypeDecimal:
		t = row.Type{Kind: row.Decimal, Precision: number(d.Precision, 10), Scale: number(d.Scale, 0)}
		if t.Precision < 1 || t.Precision > 38 || t.Scale < 0 || t.Scale > t.Precision {
			return t, b.fail(errs.SQLTypeMismatch, d.Pos, "DECIMAL(%d, %d) does not exist", t.Precision, t.Scale).WithHint("1 to 38 digits, of which none or up to all stand behind the point")
		}
	case parser.TypeTinyint:
		t.Kind = row.TinyInt
	case parser.TypeSmallint:
		t.Kind = row.SmallInt
	case parser.TypeInt:
		t.Kind = row.Int
	case parser.TypeBigint:
		t.Kind = row.BigInt
	case parser.TypeFloat:
		t.Kind = row.Float
	case parser.TypeDouble:
		t.Kind = row.Double
	case parser.TypeDate:
		t.Kind = row.Date
	case parser.TypeTime:
		return fraction(row.Time, 0)
	case parser.TypeTimestamp:
		return fraction(row.Timestamp, 6)
	case parser.TypeTimestampLTZ:
		return fraction(row.TimestampLTZ, 6)
	case parser.TypeInterval:
		t.Kind = row.IntervalTime
		if q := d.Interval; q != nil && (q.From == "YEAR" || q.From == "MONTH") {
			t.Kind = row.IntervalMonths
		}
	case parser.TypeUUID:
		t.Kind = row.UUID
	case parser.TypeJSON:
		t.Kind = row.JSON
	case parser.TypeNull:
		t.Kind = row.Null
	case parser.TypeArray:
		t.Kind = row.Array
		t.Elem, err = elem(d.Elem)
	case parser.TypeMultiset:
		t.Kind = row.Multiset
		t.Elem, err = elem(d.Elem)
	case parser.TypeMap:
		t.Kind = row.Map
		if t.Key, err = elem(d.Key); err == nil {
			t.Elem, err = elem(d.Elem)
		}
	case parser.TypeRow:
		t.Kind = row.Struct
		for _, f := range d.Fields {
			ft, err := b.typeOf(f.Type)
			if err != nil {
				return t, err
			}
			t.Fields = append(t.Fields, row.Field{Name: f.Name.Text, Type: ft})
		}
	default:
		return t, b.fail(errs.NotBuiltYet, d.Pos, "this type is not built yet")
	}
	return t, err
}
