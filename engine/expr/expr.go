// Package expr compiles SQL expressions to loops over column vectors.
//
// An expression is a tree of Expr, typed from the leaves up: Resolve finds a function or an operator by its SQL name and
// inserts the implicit casts. Compile turns a list of expressions over one input into a Program, which computes common
// parts once, and CompileFilter turns a condition into a Filter, which makes a selection. The rules are those of Flink
// SQL, but for this: a number that does not fit its type, and whatever else cannot be computed, is a Fault of its row and
// never a wrong value.
package expr

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/row"
)

// Expr is a node of a typed expression tree. Trees are immutable and may share parts. String is canonical SQL: equal
// expressions over equally named columns have equal text, in every release, because operator ids are made of it.
type Expr interface {
	Type() row.Type
	String() string
	children() []Expr
	with(children []Expr) Expr
}

// Column is column Index of the input. Name is for String alone; without one it is written $index.
type Column struct {
	Index int
	T     row.Type
	Name  string
}

// Const is a value. Vec holds it as its only value.
type Const struct {
	T   row.Type
	Vec *row.Vector
}

// Call is a function or operator over its arguments, made by Resolve.
type Call struct {
	Fn   *Function
	Args []Expr
	T    row.Type
}

// Cast turns Arg into T. A failed cast is a fault, or NULL with Try.
type Cast struct {
	Arg Expr
	T   row.Type
	Try bool
	// Keep is for a text that goes to a column: one that is longer than T says is not cut, as in Flink, and left to the
	// column's owner to refuse.
	Keep bool
}

// When is a branch of a Case.
type When struct{ Cond, Then Expr }

// Case is the value of the first branch whose condition is TRUE, or Else. Each branch is computed only for the rows that
// take it.
type Case struct {
	Whens []When
	Else  Expr // never nil
	T     row.Type
}

// Logic is AND or OR of two or more conditions. A later one is computed only for rows that the earlier ones leave open.
type Logic struct {
	Or   bool
	Args []Expr
}

// Coalesce is the first argument that is not NULL; later ones are computed only where it is needed.
type Coalesce struct {
	Args []Expr
	T    row.Type
}

// In tells whether Arg is among constants.
type In struct {
	Arg  Expr
	List []*Const // of Arg's type; not NULL
	// Null: there was a NULL in the list, so what is not found is NULL and not FALSE.
	Null bool
	Not  bool
}

// Type of the value.
func (e *Column) Type() row.Type { return e.T }

// Type of the value.
func (e *Const) Type() row.Type { return e.T }

// Type of the value.
func (e *Call) Type() row.Type { return e.T }

// Type of the value.
func (e *Cast) Type() row.Type { return e.T }

// Type of the value.
func (e *Case) Type() row.Type { return e.T }

// Type of the value.
func (e *Logic) Type() row.Type { return boolType(e.Args...) }

// Type of the value.
func (e *Coalesce) Type() row.Type { return e.T }

// Type of the value.
func (e *In) Type() row.Type {
	t := boolType(e.Arg)
	t.NotNull = t.NotNull && !e.Null
	return t
}

// boolType is BOOLEAN, NULL only if one of the arguments can be.
func boolType(args ...Expr) row.Type { return row.Type{Kind: row.Boolean, NotNull: allNotNull(args)} }

func allNotNull(args []Expr) bool {
	for _, a := range args {
		if !a.Type().NotNull {
			return false
		}
	}
	return true
}

func (e *Column) children() []Expr   { return nil }
func (e *Const) children() []Expr    { return nil }
func (e *Call) children() []Expr     { return e.Args }
func (e *Cast) children() []Expr     { return []Expr{e.Arg} }
func (e *Logic) children() []Expr    { return e.Args }
func (e *Coalesce) children() []Expr { return e.Args }
func (e *In) children() []Expr       { return []Expr{e.Arg} }

func (e *Case) children() []Expr {
	cs := make([]Expr, 0, 2*len(e.Whens)+1)
	for _, w := range e.Whens {
		cs = append(cs, w.Cond, w.Then)
	}
	return append(cs, e.Else)
}

func (e *Column) with([]Expr) Expr      { return e }
func (e *Const) with([]Expr) Expr       { return e }
func (e *Call) with(cs []Expr) Expr     { return &Call{e.Fn, cs, e.T} }
func (e *Cast) with(cs []Expr) Expr     { return &Cast{cs[0], e.T, e.Try, e.Keep} }
func (e *Logic) with(cs []Expr) Expr    { return &Logic{e.Or, cs} }
func (e *Coalesce) with(cs []Expr) Expr { return &Coalesce{cs, e.T} }
func (e *In) with(cs []Expr) Expr       { return &In{cs[0], e.List, e.Null, e.Not} }

func (e *Case) with(cs []Expr) Expr {
	n := &Case{Whens: make([]When, len(e.Whens)), Else: cs[len(cs)-1], T: e.T}
	for i := range n.Whens {
		n.Whens[i] = When{cs[2*i], cs[2*i+1]}
	}
	return n
}

func (e *Column) String() string {
	if e.Name == "" {
		return "$" + strconv.Itoa(e.Index)
	}
	return quoteName(e.Name)
}

func quoteName(name string) string {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == 0) {
			return "`" + strings.ReplaceAll(name, "`", "``") + "`"
		}
	}
	return name
}

func (e *Const) String() string {
	t := e.T.Nullable()
	if e.IsNull() {
		if t.Kind == row.Null {
			return "NULL"
		}
		return "CAST(NULL AS " + t.String() + ")"
	}
	if composite := compositeText(t, e.Vec); composite != "" {
		return "CAST(" + composite + " AS " + t.String() + ")"
	}
	text := string(row.AppendText(nil, t, e.Vec, 0, nil))
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	switch t.Kind {
	case row.Boolean, row.Int:
		return text
	case row.Decimal:
		if t.Precision == len(strings.TrimLeft(strings.ReplaceAll(text, ".", ""), "-0")) && strings.Contains(text, ".") {
			return text
		}
	case row.Double:
		if strings.Contains(text, "E") {
			return text
		}
	case row.String:
		if t.Fixed || t.Precision > 0 {
			break
		}
		return quoted
	case row.Bytes:
		return fmt.Sprintf("X'%X'", text)
	case row.Date:
		return "DATE " + quoted
	case row.Time:
		return "TIME " + quoted
	case row.Timestamp:
		return "TIMESTAMP " + quoted
	case row.TimestampLTZ: // whatever the session's zone is
		quoted = "'" + text + "Z'"
	case row.IntervalMonths:
		return "INTERVAL " + quoted + " YEAR TO MONTH"
	case row.IntervalTime:
		return "INTERVAL " + quoted + " DAY TO SECOND"
	case row.TinyInt, row.SmallInt, row.BigInt:
		return "CAST(" + text + " AS " + t.String() + ")"
	}
	return "CAST(" + quoted + " AS " + t.String() + ")"
}

// compositeText is the constructor of an array, map or row; its parts are constants of their own, since the plain text
// of a value does not tell [a, b] from ['a, b'].
func compositeText(t row.Type, v *row.Vector) string {
	list := func(elem row.Type, b []byte) []string {
		l := row.ReadList(elem, b)
		var out []string
		for k := range l.Len() {
			x := &row.Vector{}
			l.AppendTo(x, k)
			out = append(out, NewConst(elem, x).String())
		}
		return out
	}
	switch t.Kind {
	case row.Array:
		return "ARRAY[" + strings.Join(list(*t.Elem, v.Bytes(0)), ", ") + "]"
	case row.Map, row.Multiset:
		key, value := row.MapTypes(t)
		kb, vb := row.SplitMap(v.Bytes(0))
		keys, values := list(key, kb), list(value, vb)
		for k := range keys {
			keys[k] += ", " + values[k]
		}
		return "MAP[" + strings.Join(keys, ", ") + "]"
	case row.Struct:
		c := row.NewCodec(row.Schema(t.Fields).Types())
		var out []string
		for k, f := range t.Fields {
			x := &row.Vector{}
			c.Decode(x, 0, k, [][]byte{v.Bytes(0)})
			out = append(out, NewConst(f.Type, x).String())
		}
		return "ROW(" + strings.Join(out, ", ") + ")"
	}
	return ""
}

func (e *Call) String() string { return e.Fn.format(e) }

func (e *Cast) String() string {
	name := "CAST("
	switch {
	case e.Try:
		name = "TRY_CAST("
	case e.Keep:
		return e.Arg.String()
	}
	return name + e.Arg.String() + " AS " + e.T.Nullable().String() + ")"
}

func (e *Case) String() string {
	var b strings.Builder
	b.WriteString("CASE")
	for _, w := range e.Whens {
		b.WriteString(" WHEN " + w.Cond.String() + " THEN " + w.Then.String())
	}
	return b.String() + " ELSE " + e.Else.String() + " END"
}

func (e *Logic) String() string {
	op := " AND "
	if e.Or {
		op = " OR "
	}
	return "(" + joinExprs(e.Args, op) + ")"
}

func (e *Coalesce) String() string { return "COALESCE(" + joinExprs(e.Args, ", ") + ")" }

func (e *In) String() string {
	var b strings.Builder
	b.WriteString("(" + e.Arg.String())
	if e.Not {
		b.WriteString(" NOT")
	}
	b.WriteString(" IN (")
	for i, c := range e.List {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.String())
	}
	if e.Null {
		if len(e.List) > 0 {
			b.WriteString(", ")
		}
		b.WriteString("NULL")
	}
	return b.String() + "))"
}

func joinExprs(es []Expr, sep string) string {
	parts := make([]string, len(es))
	for i, e := range es {
		parts[i] = e.String()
	}
	return strings.Join(parts, sep)
}
