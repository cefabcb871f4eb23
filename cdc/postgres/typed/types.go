package typed

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// MetadataKeys are the metadata columns that a table can have, with Flink CDC's names.
func MetadataKeys() []string {
	return []string{"database_name", "schema_name", "table_name", opTS}
}

// opTS is when the row's transaction was committed, by the clock of the database; of a row of the first copy 1970.
const opTS = "op_ts"

// metadata is how a metadata column is read.
func (t *table) metadata(c int, database string) (reader, error) {
	key, col := t.Metadata[c], t.Columns[c]
	if key == opTS {
		if col.Type.Kind != row.TimestampLTZ || col.Type.Precision > 6 {
			return reader{}, errs.New(errs.SQLTypeMismatch, "metadata %s of table %s is a TIMESTAMP_LTZ(3), and column %s is declared as %s", key, t, col.Name, col.Type)
		}
		r := reader{how: commitTime, unit: 1}
		for range 6 - col.Type.Precision {
			r.unit *= 10
		}
		return r, nil
	}
	value, ok := map[string]string{"database_name": database, "schema_name": t.Schema, "table_name": t.Name}[key]
	if !ok {
		return reader{}, errs.New(errs.SQLUnknownName, "there is no metadata %s", key).WithHint("postgres-cdc knows %s", strings.Join(MetadataKeys(), ", "))
	}
	if col.Type.Kind != row.String {
		return reader{}, errs.New(errs.SQLTypeMismatch, "metadata %s of table %s is a STRING, and column %s is declared as %s", key, t, col.Name, col.Type)
	}
	return reader{how: constants, constant: value}, nil
}

// reader reads the values of a column.
type reader struct {
	how      how
	constant string // of a metadata column
	unit     int64  // µs to which a commit time is cut
}

type how uint8

const (
	parsed     how = iota // by row.ParseText
	asText                // the server's text is the value
	asHex                 // bytea
	exactly               // a DECIMAL: as parsed, but digits that would be rounded away are an error
	constants             // metadata
	commitTime            // metadata
)

// append reads a value into column c of the table's batch.
func (r *reader) append(t *table, c int, text []byte, null bool) error {
	v, typ := t.batch.Cols[c], &t.Columns[c].Type
	switch r.how {
	case constants:
		v.AppendString(r.constant)
		return nil
	case commitTime:
		v.Int64 = append(v.Int64, t.op-t.op%r.unit)
		return nil
	}
	if null {
		if typ.NotNull {
			return errs.New(errs.EvalCast, "table %s has a NULL in column %s, which is declared as %s", t, t.Columns[c].Name, typ).
				WithHint("take NOT NULL out of the declaration")
		}
		v.AppendNull(typ.Layout())
		return nil
	}
	var err error
	switch r.how {
	case asText:
		v.AppendBytes(text)
	case asHex:
		err = appendHex(v, text)
	case exactly:
		if digits := scaleOf(text); digits > typ.Scale {
			err = fmt.Errorf("it has %d digits behind the point", digits)
			break
		}
		fallthrough
	default:
		err = row.ParseText(v, *typ, text, nil)
	}
	if err != nil {
		return errs.New(errs.EvalCast, "table %s, column %s: %q is no value of %s: %w", t, t.Columns[c].Name, text, typ, err).Because(err).
			WithHint("declare the column as STRING, which takes every value as the server writes it")
	}
	return nil
}

func appendHex(v *row.Vector, text []byte) error {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return errors.New("a bytea begins with \\x")
	}
	n, off := hex.DecodedLen(len(text)-2), len(v.Heap)
	v.Heap = slices.Grow(v.Heap, n)[:off+n]
	if _, err := hex.Decode(v.Heap[off:], text[2:]); err != nil {
		return err
	}
	v.Spans = append(v.Spans, row.Span{Off: uint32(off), Len: uint32(n)})
	return nil
}

// scaleOf is how many digits a number has behind the point, without zeros at the end.
func scaleOf(text []byte) int {
	for i, b := range text {
		if b != '.' {
			continue
		}
		n := len(text)
		for n > i+1 && text[n-1] == '0' {
			n--
		}
		return n - i - 1
	}
	return 0
}

// readerOf tells how values of a column of the database become values of the declared type; or why they do not.
func readerOf(c *pg.Column, t row.Type) (reader, error) {
	base, mod := &c.Type, c.Mod
	for base.BaseType != nil {
		base = base.BaseType // a domain is read as what it is over; its modifier is not known here
		mod = -1
	}
	if t.Kind == row.String {
		length := lengthOf(base, mod)
		switch {
		case t.Precision == 0 && !t.Fixed, length > 0 && length <= t.Precision && !t.Fixed, length > 0 && length == t.Precision && base.OID == 1042:
			return reader{how: asText}, nil
		}
		return reader{}, fmt.Errorf("its values may be longer or shorter; STRING takes all of them")
	}
	kinds, ok := builtin[base.OID]
	if !ok {
		return reader{}, fmt.Errorf("STRING takes its values as the server writes them")
	}
	if !slices.Contains(kinds, t.Kind) {
		return reader{}, fmt.Errorf("%s takes its values", suggested(base, mod))
	}
	switch t.Kind {
	case row.Bytes:
		if t.Precision > 0 || t.Fixed {
			return reader{}, errors.New("BYTES takes its values")
		}
		return reader{how: asHex}, nil
	case row.Decimal:
		if base.OID == numericOID && mod >= 4 {
			p, s := int((mod-4)>>16&0xffff), int((mod-4)&0x7ff)
			if s > t.Scale || p-s > t.Precision-t.Scale {
				return reader{}, fmt.Errorf("%s takes its values", suggested(base, mod))
			}
		}
		return reader{how: exactly}, nil
	case row.JSON:
		return reader{how: asText}, nil
	}
	return reader{how: parsed}, nil
}

// holds tells whether a column whose type changes from one to the other has the values that it had. asText: they are read as
// the server writes them, so that must not change either.
func holds(from, to *pg.Column, asText bool) bool {
	rank := func(oid uint32) int { return slices.Index([]uint32{21, 23, 20}, oid) } // SMALLINT, INTEGER, BIGINT
	places := func(mod int32) (whole, scale int) {
		if mod < 4 {
			return 1 << 20, 1 << 20
		}
		p, s := int((mod-4)>>16&0xffff), int((mod-4)&0x7ff)
		return p - s, s
	}
	text := func(c *pg.Column) bool { return c.Type.OID == 25 || c.Type.OID == 1043 }
	switch {
	case from.Type.OID == to.Type.OID && from.Type.OID == numericOID:
		fw, fs := places(from.Mod)
		tw, ts := places(to.Mod)
		return tw >= fw && ts >= fs && (!asText || ts == fs)
	case rank(from.Type.OID) >= 0 && to.Type.OID == numericOID:
		whole, scale := places(to.Mod)
		return whole >= []int{5, 10, 19}[rank(from.Type.OID)] && (!asText || to.Mod < 4 || scale == 0)
	case rank(from.Type.OID) >= 0:
		return rank(to.Type.OID) >= rank(from.Type.OID)
	case text(from) && text(to):
		return lengthOf(&to.Type, to.Mod) == 0 || lengthOf(&from.Type, from.Mod) > 0 && lengthOf(&to.Type, to.Mod) >= lengthOf(&from.Type, from.Mod)
	case from.Type.OID == to.Type.OID && slices.Contains([]uint32{1083, 1114, 1184}, to.Type.OID): // TIME and TIMESTAMP of more digits
		return to.Mod < 0 || from.Mod >= 0 && to.Mod >= from.Mod
	}
	return false
}

const numericOID = 1700

// builtin are the types that values of a built-in type may be declared as, the usual one first; every type's values may
// be a STRING.
var builtin = map[uint32][]row.Kind{
	16:         {row.Boolean},
	17:         {row.Bytes},
	20:         {row.BigInt, row.Decimal, row.Numeric},
	21:         {row.SmallInt, row.Int, row.BigInt, row.Decimal, row.Numeric},
	23:         {row.Int, row.BigInt, row.Decimal, row.Numeric},
	26:         {row.BigInt},
	114:        {row.JSON},
	700:        {row.Float},
	701:        {row.Double},
	1082:       {row.Date},
	1083:       {row.Time},
	1114:       {row.Timestamp},
	1184:       {row.TimestampLTZ},
	numericOID: {row.Decimal, row.Numeric},
	2950:       {row.UUID},
	3802:       {row.JSON},
}

// lengthOf is the length of a text type, 0 if it has none.
func lengthOf(t *pg.Type, mod int32) int {
	if (t.OID == 1042 || t.OID == 1043) && mod >= 4 {
		return int(mod - 4)
	}
	return 0
}

// suggested is the declared type that fits best.
func suggested(t *pg.Type, mod int32) string {
	kinds := builtin[t.OID]
	if len(kinds) == 0 {
		return "STRING"
	}
	switch kinds[0] {
	case row.Decimal:
		if mod >= 4 {
			if p, s := int((mod-4)>>16&0xffff), int((mod-4)&0x7ff); p <= 38 && s <= p {
				return "DECIMAL(" + strconv.Itoa(p) + ", " + strconv.Itoa(s) + ")"
			}
		}
		return "NUMERIC"
	case row.Time, row.Timestamp, row.TimestampLTZ:
		p := 6
		if mod >= 0 {
			p = int(mod)
		}
		return row.Type{Kind: kinds[0], Precision: p}.String()
	}
	return row.Type{Kind: kinds[0]}.String()
}
