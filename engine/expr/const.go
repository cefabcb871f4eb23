package expr

import (
	"math/big"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// NewConst is a constant of t; vec holds its only value and belongs to the constant from now on.
func NewConst(t row.Type, vec *row.Vector) *Const {
	t.NotNull = !vec.Nulls.Is(0)
	return &Const{T: t, Vec: vec}
}

// Bool is TRUE or FALSE.
func Bool(b bool) *Const {
	v := int64(0)
	if b {
		v = 1
	}
	return Int(row.Type{Kind: row.Boolean}, v)
}

// Int is a constant of any type of the Int64 layout.
func Int(t row.Type, v int64) *Const { return NewConst(t, &row.Vector{Int64: []int64{v}}) }

// Float is a DOUBLE.
func Float(f float64) *Const {
	return NewConst(row.Type{Kind: row.Double}, &row.Vector{Float64: []float64{f}})
}

// Str is a text literal: a STRING, whose length does not matter to any rule of ours, so that CHAR(n) is not needed.
func Str(s string) *Const {
	v := &row.Vector{}
	v.AppendString(s)
	return NewConst(row.Type{Kind: row.String}, v)
}

// Binary is a literal X'..'.
func Binary(b []byte) *Const {
	v := &row.Vector{}
	v.AppendBytes(b)
	return NewConst(row.Type{Kind: row.Bytes}, v)
}

// Null is a bare NULL, which takes the type that its place asks for.
func Null() *Const { return NullOf(row.Type{Kind: row.Null}) }

// NullOf is a NULL of type t.
func NullOf(t row.Type) *Const {
	v := &row.Vector{}
	v.AppendNull(t.Layout())
	return NewConst(t, v)
}

// Number is a numeric literal as SQL reads it: INT or BIGINT if it is whole and fits, DECIMAL otherwise, DOUBLE with an
// exponent.
func Number(text string) (*Const, error) {
	if strings.ContainsAny(text, "eE") {
		return literal(row.Type{Kind: row.Double}, text, nil)
	}
	whole, frac, point := strings.Cut(text, ".")
	if !point {
		for _, k := range []row.Kind{row.Int, row.BigInt} {
			if x, err := row.ParseInteger(k, []byte(text)); err == nil {
				return Int(row.Type{Kind: k}, x), nil
			}
		}
		if _, ok := new(big.Int).SetString(text, 10); !ok {
			return nil, errs.New(errs.SQLTypeMismatch, "%q is not a number", text)
		}
	}
	whole = strings.TrimLeft(strings.TrimLeft(whole, "+-"), "0")
	t := row.Type{Kind: row.Decimal, Precision: max(len(whole)+len(frac), 1), Scale: len(frac)}
	if t.Precision > row.MaxPrecision {
		return nil, errs.New(errs.SQLTypeMismatch, "the number %s has %d digits, a DECIMAL takes %d", text, t.Precision, row.MaxPrecision).
			WithHint("write it with an exponent (1E0) to make it a DOUBLE")
	}
	return literal(t, text, nil)
}

// ParseLiteral is the constant of type t that text stands for, as in DATE '2026-01-01'. Zone is where a TIMESTAMP_LTZ
// without a zone of its own was written.
func ParseLiteral(t row.Type, text string, zone *time.Location) (*Const, error) {
	return literal(t, text, zone)
}

func literal(t row.Type, text string, zone *time.Location) (*Const, error) {
	v := &row.Vector{}
	if err := row.ParseText(v, t, []byte(text), zone); err != nil {
		return nil, errs.New(errs.SQLTypeMismatch, "%q is no literal of %s: %w", text, t.Nullable(), err)
	}
	return NewConst(t, v), nil
}

// IsNull tells whether the constant is NULL.
func (e *Const) IsNull() bool { return e.Vec.Nulls.Is(0) || e.T.Kind == row.Null }

// Int64 is the value of a constant of the Int64 layout that is not NULL.
func (e *Const) Int64() int64 { return e.Vec.Int64[0] }

// Text is the value of a constant of the bytes layout; NULL is empty.
func (e *Const) Text() string {
	if len(e.Vec.Spans) == 0 {
		return ""
	}
	return string(e.Vec.Bytes(0))
}
