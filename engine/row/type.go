// Package row holds the engine's data: types, column vectors, batches, and the binary forms of rows and keys.
//
// Vectors are for computing, binary rows for keeping and sending. Everything here is plain memory: no value points to
// another, so neither the garbage collector nor a cache has anything to follow.
package row

import (
	"fmt"
	"strings"
)

// Kind is the family of a type.
type Kind uint8

// The kinds. A comment says how a value lies in a vector.
const (
	Null           Kind = iota // the type of a bare NULL; Int64 layout, every value NULL
	Boolean                    // Int64: 0 or 1
	TinyInt                    // Int64
	SmallInt                   // Int64
	Int                        // Int64
	BigInt                     // Int64
	Float                      // Float64, rounded to 32 bits
	Double                     // Float64
	Decimal                    // Decimal128: the value times 10^Scale
	Numeric                    // Bytes: unbounded decimal as its canonical text
	String                     // Bytes: UTF-8; CHAR, VARCHAR and STRING
	Bytes                      // Bytes: BINARY, VARBINARY and BYTES
	Date                       // Int64: days since 1970-01-01
	Time                       // Int64: nanoseconds of the day
	Timestamp                  // Int64: microseconds since 1970-01-01 00:00:00, nanoseconds if Precision > 6; no zone
	TimestampLTZ               // as Timestamp, of the instant in UTC
	IntervalMonths             // Int64: months; INTERVAL YEAR TO MONTH
	IntervalTime               // Int64: microseconds; INTERVAL DAY TO SECOND
	UUID                       // Bytes: 16 bytes
	JSON                       // Bytes: text
	Array                      // Bytes: see AppendList
	Map                        // Bytes: a list of keys, then a list of values
	Multiset                   // Bytes: a map from element to count
	Struct                     // Bytes: a binary row of Fields; SQL's ROW
	Foreign                    // Bytes: a source's own text for a type that the engine has none for
	numKinds
)

// Layout is which slice of a Vector holds the values of a kind.
type Layout uint8

// The layouts.
const (
	LayoutInt64 Layout = iota
	LayoutFloat64
	LayoutDecimal
	LayoutBytes
)

// Field is a column of a Struct or of a Schema.
type Field struct {
	Name string
	Type Type
}

// Schema is the columns of a relation, in order.
type Schema []Field

// Types are the columns' types.
func (s Schema) Types() []Type {
	ts := make([]Type, len(s))
	for i := range s {
		ts[i] = s[i].Type
	}
	return ts
}

// Index is the place of a column, -1 if there is none. Case counts, as in Flink.
func (s Schema) Index(name string) int {
	for i := range s {
		if s[i].Name == name {
			return i
		}
	}
	return -1
}

// Type is a SQL type. Types are compared with Equal.
type Type struct {
	Kind Kind
	// Precision is p of DECIMAL(p,s), TIME(p), TIMESTAMP(p), and the length of CHAR, VARCHAR, BINARY and VARBINARY, where 0
	// means unbounded. Scale is s of DECIMAL(p,s).
	Precision, Scale int
	// Fixed tells CHAR from VARCHAR and BINARY from VARBINARY.
	Fixed   bool
	NotNull bool
	Key     *Type   // of a Map
	Elem    *Type   // of an Array, Map (the values) or Multiset
	Fields  []Field // of a Struct
	Name    string  // of a Foreign type
}

// Layout is where a vector keeps values of this type.
func (t Type) Layout() Layout { return t.Kind.Layout() }

// Layout is where a vector keeps values of this kind.
func (k Kind) Layout() Layout {
	switch k {
	case Float, Double:
		return LayoutFloat64
	case Decimal:
		return LayoutDecimal
	case Numeric, String, Bytes, UUID, JSON, Array, Map, Multiset, Struct, Foreign:
		return LayoutBytes
	default:
		return LayoutInt64
	}
}

// Integer tells TINYINT to BIGINT.
func (k Kind) Integer() bool { return k >= TinyInt && k <= BigInt }

// Number tells every kind that arithmetic takes.
func (k Kind) Number() bool { return k >= TinyInt && k <= Numeric }

// Nullable is the type with NULL among its values.
func (t Type) Nullable() Type { t.NotNull = false; return t }

// Required is the type without NULL.
func (t Type) Required() Type { t.NotNull = true; return t }

// Same tells whether two types have the same values but for NULL.
func (t Type) Same(o Type) bool {
	t.NotNull, o.NotNull = false, false
	return t.Equal(o)
}

// Equal tells whether two types are the same.
func (t Type) Equal(o Type) bool {
	if t.Kind != o.Kind || t.Precision != o.Precision || t.Scale != o.Scale || t.Fixed != o.Fixed || t.NotNull != o.NotNull || t.Name != o.Name ||
		len(t.Fields) != len(o.Fields) || (t.Key == nil) != (o.Key == nil) || (t.Elem == nil) != (o.Elem == nil) {
		return false
	}
	if t.Key != nil && !t.Key.Equal(*o.Key) || t.Elem != nil && !t.Elem.Equal(*o.Elem) {
		return false
	}
	for i := range t.Fields {
		if t.Fields[i].Name != o.Fields[i].Name || !t.Fields[i].Type.Equal(o.Fields[i].Type) {
			return false
		}
	}
	return true
}

// String is the type as SQL writes it.
func (t Type) String() string {
	s := t.name()
	if t.NotNull {
		s += " NOT NULL"
	}
	return s
}

func (t Type) name() string {
	length := func(fixed, variable, unbounded string) string {
		switch {
		case t.Fixed:
			return fmt.Sprintf("%s(%d)", fixed, t.Precision)
		case t.Precision > 0:
			return fmt.Sprintf("%s(%d)", variable, t.Precision)
		}
		return unbounded
	}
	switch t.Kind {
	case Null:
		return "NULL"
	case Boolean:
		return "BOOLEAN"
	case TinyInt:
		return "TINYINT"
	case SmallInt:
		return "SMALLINT"
	case Int:
		return "INT"
	case BigInt:
		return "BIGINT"
	case Float:
		return "FLOAT"
	case Double:
		return "DOUBLE"
	case Decimal:
		return fmt.Sprintf("DECIMAL(%d, %d)", t.Precision, t.Scale)
	case Numeric:
		return "NUMERIC"
	case String:
		return length("CHAR", "VARCHAR", "STRING")
	case Bytes:
		return length("BINARY", "VARBINARY", "BYTES")
	case Date:
		return "DATE"
	case Time:
		return fmt.Sprintf("TIME(%d)", t.Precision)
	case Timestamp:
		return fmt.Sprintf("TIMESTAMP(%d)", t.Precision)
	case TimestampLTZ:
		return fmt.Sprintf("TIMESTAMP_LTZ(%d)", t.Precision)
	case IntervalMonths:
		return "INTERVAL YEAR TO MONTH"
	case IntervalTime:
		return "INTERVAL DAY TO SECOND"
	case UUID:
		return "UUID"
	case JSON:
		return "JSON"
	case Array:
		return "ARRAY<" + t.Elem.String() + ">"
	case Map:
		return "MAP<" + t.Key.String() + ", " + t.Elem.String() + ">"
	case Multiset:
		return "MULTISET<" + t.Elem.String() + ">"
	case Struct:
		var b strings.Builder
		b.WriteString("ROW<")
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString("`" + strings.ReplaceAll(f.Name, "`", "``") + "` " + f.Type.String())
		}
		return b.String() + ">"
	case Foreign:
		return t.Name
	}
	return fmt.Sprintf("kind %d", t.Kind)
}
