package expr

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

func kind(k row.Kind) row.Type      { return row.Type{Kind: k} }
func decimalType(p, s int) row.Type { return row.Type{Kind: row.Decimal, Precision: p, Scale: s} }
func timestampType(precision int) row.Type {
	return row.Type{Kind: row.Timestamp, Precision: precision}
}
func required(t row.Type, yes bool) row.Type {
	t.NotNull = yes
	return t
}

// digitsOf is the DECIMAL that holds every value of an exact numeric type.
func digitsOf(t row.Type) (precision, scale int) {
	switch t.Kind {
	case row.TinyInt:
		return 3, 0
	case row.SmallInt:
		return 5, 0
	case row.Int:
		return 10, 0
	case row.BigInt:
		return 19, 0
	}
	return t.Precision, t.Scale
}

// adjusted gives up digits behind the point, down to six, when there are more than 38 in all.
func adjusted(p, s int) row.Type {
	if p <= row.MaxPrecision {
		return decimalType(p, s)
	}
	return decimalType(row.MaxPrecision, max(row.MaxPrecision-(p-s), min(s, 6)))
}

// decimalResult is the type of a DECIMAL operator.
func decimalResult(op string, p1, s1, p2, s2 int) row.Type {
	switch op {
	case "+", "-":
		s := max(s1, s2)
		return adjusted(max(p1-s1, p2-s2)+s+1, s)
	case "*":
		return adjusted(p1+p2+1, s1+s2)
	case "/":
		s := max(6, s1+p2+1)
		return adjusted(p1-s1+s2+s, s)
	default: // %
		s := max(s1, s2)
		return adjusted(min(p1-s1, p2-s2)+s, s)
	}
}

// RoundType is the type of ROUND(DECIMAL(p, s), digits).
func roundType(p, s, digits int) row.Type {
	switch {
	case digits >= s:
		return decimalType(p, s)
	case digits < 0:
		return decimalType(min(row.MaxPrecision, 1+p-s), 0)
	}
	return decimalType(1+p-s+digits, digits)
}

// CommonType is the narrowest type that takes the values of all: of branches, of both sides of a comparison or a UNION.
// It is NOT NULL only if all are.
func CommonType(ts ...row.Type) (row.Type, error) {
	notNull := true
	t := kind(row.Null)
	for _, u := range ts {
		notNull = notNull && u.NotNull && u.Kind != row.Null
		c, ok := common(t, u)
		if !ok {
			return row.Type{}, errs.New(errs.SQLTypeMismatch, "%s and %s have no common type", t.Nullable(), u.Nullable()).
				WithHint("cast one of them: CAST(x AS %s)", t.Nullable())
		}
		t = c
	}
	return required(t, notNull), nil
}

// common is CommonType of two, without NOT NULL.
func common(a, b row.Type) (row.Type, bool) {
	a, b = a.Nullable(), b.Nullable()
	switch {
	case a.Equal(b) || b.Kind == row.Null:
		return a, true
	case a.Kind == row.Null:
		return b, true
	case a.Kind.Number() && b.Kind.Number():
		return commonNumber(a, b), true
	}
	if a.Kind > b.Kind {
		a, b = b, a
	}
	switch {
	case a.Kind == row.String && b.Kind == row.String, a.Kind == row.Bytes && b.Kind == row.Bytes:
		return commonString(a, b), true
	case a.Kind == row.String && (b.Kind == row.JSON || b.Kind == row.Foreign):
		return kind(row.String), true
	case a.Kind == row.Date && (b.Kind == row.Timestamp || b.Kind == row.TimestampLTZ):
		return b, true
	case a.Kind == row.Time && b.Kind == row.Time:
		return row.Type{Kind: row.Time, Precision: max(a.Precision, b.Precision)}, true
	case (a.Kind == row.Timestamp || a.Kind == row.TimestampLTZ) && (b.Kind == row.Timestamp || b.Kind == row.TimestampLTZ):
		return row.Type{Kind: b.Kind, Precision: max(a.Precision, b.Precision)}, true
	case a.Kind == row.Array && b.Kind == row.Array, a.Kind == row.Multiset && b.Kind == row.Multiset:
		elem, ok := commonNested(*a.Elem, *b.Elem)
		return row.Type{Kind: a.Kind, Elem: &elem}, ok
	case a.Kind == row.Map && b.Kind == row.Map:
		key, ok := commonNested(*a.Key, *b.Key)
		if !ok {
			return row.Type{}, false
		}
		value, ok := commonNested(*a.Elem, *b.Elem)
		return row.Type{Kind: row.Map, Key: &key, Elem: &value}, ok
	case a.Kind == row.Struct && b.Kind == row.Struct && len(a.Fields) == len(b.Fields):
		t := row.Type{Kind: row.Struct, Fields: make([]row.Field, len(a.Fields))}
		for i := range a.Fields {
			f, ok := commonNested(a.Fields[i].Type, b.Fields[i].Type)
			if !ok {
				return row.Type{}, false
			}
			t.Fields[i] = row.Field{Name: a.Fields[i].Name, Type: f}
		}
		return t, true
	}
	return row.Type{}, false
}

func commonNested(a, b row.Type) (row.Type, bool) {
	t, ok := common(a, b)
	t.NotNull = a.NotNull && b.NotNull
	return t, ok
}

func commonNumber(a, b row.Type) row.Type {
	switch {
	case a.Kind.Integer() && b.Kind.Integer():
		return kind(max(a.Kind, b.Kind))
	case a.Kind == row.Numeric || b.Kind == row.Numeric:
		if a.Kind == row.Float || b.Kind == row.Float || a.Kind == row.Double || b.Kind == row.Double {
			return kind(row.Double)
		}
		return kind(row.Numeric)
	case a.Kind == row.Double || b.Kind == row.Double:
		return kind(row.Double)
	case a.Kind == row.Float || b.Kind == row.Float:
		if a.Kind == row.Decimal || b.Kind == row.Decimal {
			return kind(row.Double)
		}
		return kind(row.Float)
	}
	p1, s1 := digitsOf(a)
	p2, s2 := digitsOf(b)
	s := max(s1, s2)
	return decimalType(min(max(p1-s1, p2-s2)+s, row.MaxPrecision), s)
}

func commonString(a, b row.Type) row.Type {
	unbounded := !a.Fixed && a.Precision == 0 || !b.Fixed && b.Precision == 0
	t := row.Type{Kind: a.Kind}
	if !unbounded {
		t.Precision = max(a.Precision, b.Precision)
		t.Fixed = a.Fixed && b.Fixed && a.Precision == b.Precision
	}
	return t
}

// implicit tells whether values of a are taken where b is asked for, without a CAST.
func implicit(a, b row.Type) bool {
	a, b = a.Nullable(), b.Nullable()
	if a.Equal(b) || a.Kind == row.Null {
		return true
	}
	switch b.Kind {
	case row.SmallInt, row.Int, row.BigInt:
		return a.Kind.Integer() && a.Kind < b.Kind
	case row.Decimal, row.Double, row.Numeric:
		return a.Kind.Number()
	case row.Float:
		return a.Kind.Integer() || a.Kind == row.Decimal || a.Kind == row.Float
	case row.String:
		return a.Kind == row.String || a.Kind == row.JSON || a.Kind == row.Foreign
	case row.Bytes:
		return a.Kind == row.Bytes
	case row.Date:
		return a.Kind == row.Timestamp
	case row.Time:
		return a.Kind == row.Time || a.Kind == row.Timestamp
	case row.Timestamp, row.TimestampLTZ:
		return a.Kind == row.Date || a.Kind == row.Timestamp || a.Kind == row.TimestampLTZ
	case row.Array, row.Multiset, row.Map:
		return a.Kind == b.Kind && implicit(*a.Elem, *b.Elem) && (a.Key == nil || implicit(*a.Key, *b.Key))
	case row.Struct:
		if a.Kind != row.Struct || len(a.Fields) != len(b.Fields) {
			return false
		}
		for i := range a.Fields {
			if !implicit(a.Fields[i].Type, b.Fields[i].Type) {
				return false
			}
		}
		return true
	}
	return false
}

// castable tells whether CAST takes a to b.
func castable(a, b row.Type) bool {
	a, b = a.Nullable(), b.Nullable()
	if implicit(a, b) {
		return true
	}
	text := a.Kind == row.String
	switch b.Kind {
	case row.String:
		return true
	case row.Boolean:
		return text || a.Kind.Integer()
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		return text || a.Kind.Number() || a.Kind == row.Boolean || a.Kind == row.IntervalMonths || a.Kind == row.IntervalTime
	case row.Float, row.Double, row.Decimal, row.Numeric:
		return text || a.Kind.Number() || a.Kind == row.Boolean
	case row.Bytes:
		return text || a.Kind == row.UUID
	case row.Date, row.Time, row.Timestamp, row.TimestampLTZ:
		return text || a.Kind == row.Date && b.Kind != row.Time ||
			a.Kind == row.Timestamp || a.Kind == row.TimestampLTZ
	case row.IntervalMonths, row.IntervalTime:
		return text || a.Kind.Integer()
	case row.UUID:
		return text || a.Kind == row.Bytes
	case row.JSON:
		return text
	case row.Foreign:
		return text
	case row.Array, row.Multiset, row.Map:
		return a.Kind == b.Kind && castable(*a.Elem, *b.Elem) && (a.Key == nil || castable(*a.Key, *b.Key))
	case row.Struct:
		if a.Kind != row.Struct || len(a.Fields) != len(b.Fields) {
			return false
		}
		for i := range a.Fields {
			if !castable(a.Fields[i].Type, b.Fields[i].Type) {
				return false
			}
		}
		return true
	}
	return false
}

// castFaults tells whether a cast from a to b can fail for a value.
func castFaults(a, b row.Type) bool {
	switch {
	case a.Kind == row.Null || b.Kind == row.String || a.Same(b):
		return false
	case a.Kind.Integer() && b.Kind.Integer():
		return a.Kind > b.Kind
	case a.Kind.Integer() && b.Kind == row.Decimal:
		p, _ := digitsOf(a)
		return b.Precision-b.Scale < p
	case a.Kind == row.Decimal && b.Kind == row.Decimal:
		return b.Precision-b.Scale < a.Precision-a.Scale || b.Scale < a.Scale && b.Precision-b.Scale == a.Precision-a.Scale
	case a.Kind.Number() && (b.Kind == row.Float || b.Kind == row.Double):
		return b.Kind == row.Float && a.Kind != row.Float && !a.Kind.Integer()
	case a.Kind.Integer() && b.Kind == row.Boolean, a.Kind == row.Boolean && !(b.Kind == row.Decimal):
		return false
	case a.Kind.Integer() && b.Kind == row.Numeric, a.Kind == row.Decimal && b.Kind == row.Numeric:
		return false
	case a.Kind == row.Timestamp || a.Kind == row.TimestampLTZ:
		return b.Precision > 6 && a.Precision <= 6
	case a.Kind == row.Date:
		return b.Precision > 6
	case a.Kind == row.String && b.Kind == row.Bytes, a.Kind == row.Bytes && b.Kind == row.Bytes:
		return false
	}
	return true
}

// CastTo is CAST(e AS t), or TRY_CAST. What can be known not to work is refused.
func CastTo(e Expr, t row.Type, try bool) (Expr, error) {
	from := e.Type()
	if !castable(from, t) {
		return nil, errs.New(errs.SQLTypeMismatch, "%s cannot be cast to %s", from.Nullable(), t.Nullable()).WithDetail("in CAST(%s AS %s)", e, t.Nullable())
	}
	return castNode(e, t, try), nil
}

// Coerce is the cast that needs no word: of a value to its column, of branches to their common type. A constant text is
// taken as a date, a time or a UUID as well. A text is never cut.
func Coerce(e Expr, t row.Type) (Expr, error) {
	from := e.Type()
	if !implicit(from, t) && !constantText(e, t) {
		return nil, errs.New(errs.SQLTypeMismatch, "%s is not taken as %s", from.Nullable(), t.Nullable()).
			WithDetail("the expression is %s", e).WithHint("CAST(%s AS %s) says that it is meant", e, t.Nullable())
	}
	if from.Kind == t.Kind && (t.Kind == row.String || t.Kind == row.Bytes) && !from.Same(t) {
		return &Cast{Arg: e, T: required(t, from.NotNull), Keep: true}, nil
	}
	return castNode(e, t, false), nil
}

// constantText tells a text literal for a type that has no literal of its own in every place.
func constantText(e Expr, t row.Type) bool {
	if _, ok := e.(*Const); !ok || e.Type().Kind != row.String {
		return false
	}
	switch t.Kind {
	case row.Date, row.Time, row.Timestamp, row.TimestampLTZ, row.UUID, row.IntervalMonths, row.IntervalTime, row.JSON, row.Foreign:
		return true
	}
	return false
}

// castNode is a Cast, or less where nothing has to be done.
func castNode(e Expr, t row.Type, try bool) Expr {
	from := e.Type()
	notNull := from.NotNull && !try
	if from.Kind == row.Null {
		return NullOf(t)
	}
	t.NotNull = notNull
	if from.Same(t) {
		return e
	}
	if c, ok := e.(*Const); ok {
		switch {
		case c.IsNull():
			return NullOf(t)
		case from.Kind.Integer() && t.Kind.Integer() && from.Kind < t.Kind:
			return Int(t, c.Int64())
		}
	}
	return &Cast{Arg: e, T: t, Try: try}
}
