package typed

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/pg"
)

// wire is how values of a column travel: as elements of a binary array of some built-in type, which the statement casts to
// the column's own where Postgres does not do so by itself.
type wire uint8

const (
	wireBool wire = iota
	wireInt2
	wireInt4
	wireInt8
	wireFloat4
	wireFloat8
	wireNumeric
	wireText
	wireBytes
	wireDate
	wireTime
	wireTimestamp
	wireInstant
	wireMonths
	wireInterval
	wireUUID
	wireList // an array, written as Postgres writes one
)

// oids are the types of an element and of the array, by wire.
var oids = [...][2]uint32{
	wireBool: {16, 1000}, wireInt2: {21, 1005}, wireInt4: {23, 1007}, wireInt8: {20, 1016}, wireFloat4: {700, 1021}, wireFloat8: {701, 1022},
	wireNumeric: {1700, 1231}, wireText: {25, 1009}, wireBytes: {17, 1001}, wireDate: {1082, 1182}, wireTime: {1083, 1183},
	wireTimestamp: {1114, 1115}, wireInstant: {1184, 1185}, wireMonths: {1186, 1187}, wireInterval: {1186, 1187}, wireUUID: {2950, 2951},
	wireList: {25, 1009},
}

// OIDs of built-in types.
const (
	oidBool, oidBytea, oidName, oidInt8, oidInt2, oidInt4, oidText = 16, 17, 19, 20, 21, 23, 25
	oidJSON, oidFloat4, oidFloat8, oidBpchar, oidVarchar, oidDate  = 114, 700, 701, 1042, 1043, 1082
	oidTime, oidTimestamp, oidTimestamptz, oidInterval, oidNumeric = 1083, 1114, 1184, 1186, 1700
	oidUUID, oidJSONB                                              = 2950, 3802
)

// coder is how a column's values get into the database.
type coder struct {
	wire wire
	elem *row.Type // of a wireList
	cast string    // "::type", or ""
	same string    // the same for comparing with a column of the key
	// length is the most characters that the column takes, 0: any.
	length int
}

// coderOf tells how values of the declared type get into a column, or why they do not.
func coderOf(c *pg.Column, t row.Type) (coder, error) {
	base, mod := &c.Type, c.Mod
	for base.BaseType != nil {
		base, mod = base.BaseType, -1 // a domain; Postgres holds its rules against the values
	}
	x, err := coderFor(base, mod, t)
	if err != nil {
		return x, err
	}
	x.same = x.cast
	if x.same == "" && oids[x.wire][0] != base.OID && base.OID != oidVarchar {
		x.same = "::" + pg.Qualified(base.Schema, base.Name)
	}
	if (base.OID == oidVarchar || base.OID == oidBpchar) && mod >= 4 {
		x.length = int(mod - 4)
	}
	return x, nil
}

func coderFor(base *pg.Type, mod int32, t row.Type) (coder, error) {
	is := func(oids ...uint32) bool { return slices.Contains(oids, base.OID) }
	in := func(w wire) (coder, error) { return coder{wire: w}, nil }
	cast := func(w wire) (coder, error) {
		return coder{wire: w, cast: "::" + pg.Qualified(base.Schema, base.Name)}, nil
	}
	suggest := fmt.Errorf("the column has to be %s", ddlType(t))
	if _, ok := ddlTypeOf(t); !ok {
		return coder{}, errors.New("CAST it to STRING, or make an ARRAY of plain values of it")
	}
	// Postgres rounds what has too many digits without a word.
	digits := func(most int) error {
		if t.Precision > most {
			return fmt.Errorf("it keeps %d digits of a second and would round the rest away: CAST(.. AS %s)", most, row.Type{Kind: t.Kind, Precision: most})
		}
		return nil
	}
	seconds := 6
	if mod >= 0 && is(oidTime, oidTimestamp, oidTimestamptz) {
		seconds = int(mod)
	}
	switch t.Kind {
	case row.Boolean:
		if is(oidBool) {
			return in(wireBool)
		}
	case row.TinyInt, row.SmallInt, row.Int, row.BigInt:
		if is(oidInt2, oidInt4, oidInt8, oidNumeric) || is(oidFloat8) && t.Kind != row.BigInt {
			switch t.Kind {
			case row.BigInt:
				return in(wireInt8)
			case row.Int:
				return in(wireInt4)
			}
			return in(wireInt2)
		}
	case row.Float:
		if is(oidFloat4, oidFloat8) {
			return in(wireFloat4)
		}
	case row.Double:
		if is(oidFloat8) {
			return in(wireFloat8)
		}
	case row.Decimal, row.Numeric:
		w := wireNumeric
		if t.Kind == row.Numeric {
			w = wireText
		}
		switch {
		case is(oidNumeric) && mod >= 4:
			scale := int((mod-4)&0x7ff^0x400) - 0x400 // of 11 bits, signed
			if t.Kind == row.Numeric || t.Scale > scale {
				return coder{}, fmt.Errorf("it keeps %d digits behind the point and would round the rest away: CAST(.. AS DECIMAL(p, %d))", scale, max(scale, 0))
			}
			return cast(w)
		case is(oidNumeric):
			return cast(w)
		case t.Kind == row.Decimal && t.Scale == 0 && is(oidInt2, oidInt4, oidInt8):
			return in(w)
		}
	case row.String, row.Foreign:
		switch {
		case is(oidText, oidVarchar, oidBpchar, oidName):
			return in(wireText)
		case !is(oidBytea):
			return cast(wireText) // enumerations, json, ranges, addresses: whatever is read from its text
		}
	case row.JSON:
		if is(oidJSON, oidJSONB) {
			return cast(wireText)
		}
		if is(oidText, oidVarchar) {
			return in(wireText)
		}
	case row.Bytes:
		if is(oidBytea) {
			return in(wireBytes)
		}
	case row.Date:
		if is(oidDate, oidTimestamp) {
			return in(wireDate)
		}
	case row.Time:
		if is(oidTime) {
			c, _ := in(wireTime)
			return c, digits(seconds)
		}
	case row.Timestamp:
		if is(oidTimestamp) {
			c, _ := in(wireTimestamp)
			return c, digits(seconds)
		}
	case row.TimestampLTZ:
		if is(oidTimestamptz) {
			c, _ := in(wireInstant)
			return c, digits(seconds)
		}
	case row.IntervalMonths:
		if is(oidInterval) {
			return in(wireMonths)
		}
	case row.IntervalTime:
		if is(oidInterval) {
			return in(wireInterval)
		}
	case row.UUID:
		if is(oidUUID) {
			return in(wireUUID)
		}
	case row.Array:
		if base.Array && base.ElemType != nil {
			of := t.Elem
			for of.Kind == row.Array {
				of = of.Elem // the dimensions of an array are no part of its type
			}
			elem := base.ElemType
			for elem.BaseType != nil {
				elem = elem.BaseType
			}
			if _, err := coderFor(elem, mod, *of); err != nil {
				return coder{}, err
			}
			c, _ := cast(wireList)
			c.elem = t.Elem
			return c, nil
		}
	}
	return coder{}, suggest
}

// ddlType is the type of a column for values of t.
func ddlType(t row.Type) string {
	s, _ := ddlTypeOf(t)
	return s
}

func ddlTypeOf(t row.Type) (string, bool) {
	switch t.Kind {
	case row.Boolean:
		return "boolean", true
	case row.TinyInt, row.SmallInt:
		return "smallint", true
	case row.Int:
		return "integer", true
	case row.BigInt:
		return "bigint", true
	case row.Float:
		return "real", true
	case row.Double:
		return "double precision", true
	case row.Decimal:
		return fmt.Sprintf("numeric(%d, %d)", t.Precision, t.Scale), true
	case row.Numeric:
		return "numeric", true
	case row.String:
		switch {
		case t.Fixed:
			return fmt.Sprintf("char(%d)", t.Precision), true
		case t.Precision > 0:
			return fmt.Sprintf("varchar(%d)", t.Precision), true
		}
		return "text", true
	case row.Bytes:
		return "bytea", true
	case row.Date:
		return "date", true
	case row.Time, row.Timestamp, row.TimestampLTZ:
		name := map[row.Kind]string{row.Time: "time", row.Timestamp: "timestamp", row.TimestampLTZ: "timestamptz"}[t.Kind]
		if t.Precision < 6 {
			name += fmt.Sprintf("(%d)", t.Precision)
		}
		return name, true
	case row.IntervalMonths, row.IntervalTime:
		return "interval", true
	case row.UUID:
		return "uuid", true
	case row.JSON:
		return "jsonb", true
	case row.Foreign:
		return "text", true
	case row.Array:
		elem, ok := ddlTypeOf(*t.Elem)
		if t.Elem.Kind == row.IntervalMonths || t.Elem.Kind == row.IntervalTime {
			ok = false
		}
		return strings.TrimSuffix(elem, "[]") + "[]", ok
	}
	return "text", false
}
