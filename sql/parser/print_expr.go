package parser

import (
	"encoding/hex"
	"strings"
)

// String is the operator as SQL writes it.
func (o Op) String() string {
	return [...]string{"", "OR", "AND", "NOT", "=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM", "OVERLAPS",
		"||", "+", "-", "*", "/", "%", "+", "-"}[o]
}

func (o Op) level() int {
	switch o {
	case OpOr:
		return levelOr
	case OpAnd:
		return levelAnd
	case OpNot:
		return levelNot
	case OpDistinct, OpNotDistinct:
		return levelIs
	case OpConcat:
		return levelConcat
	case OpAdd, OpSub:
		return levelAdd
	case OpMul, OpDiv, OpMod:
		return levelMul
	case OpPlus, OpNeg:
		return levelSign
	}
	return levelCompare
}

// levelPrimary is above all operators.
const levelPrimary = levelPostfix + 1

func levelOf(x Expr) int {
	switch x := x.(type) {
	case *Unary:
		return x.Op.level()
	case *Binary:
		return x.Op.level()
	case *Is:
		return levelIs
	case *Between, *In, *Like, *Quantified:
		return levelCompare
	case *AtTimeZone:
		return levelZone
	case *Cast:
		if x.Colons {
			return levelPostfix
		}
	case *Subscript, *Field:
		return levelPostfix
	}
	return levelPrimary
}

// expr writes an expression, in parentheses where its operators are looser than the place allows.
func (p *printer) expr(x Expr, least int) {
	if levelOf(x) < least {
		p.s("(")
		p.bare(x)
		p.s(")")
		return
	}
	p.bare(x)
}

func (p *printer) exprs(xs []Expr) { join(p, xs, func(x Expr) { p.expr(x, levelOr) }) }

func not(n bool) string {
	if n {
		return " NOT"
	}
	return ""
}

func (p *printer) bare(x Expr) {
	switch x := x.(type) {
	case *ColumnRef:
		p.s(x.Name.String())
	case *Star:
		p.opt(x.Qualifier != nil, x.Qualifier.String()+".")
		p.s("*")
	case *Unary:
		p.unary(x)
	case *Binary:
		l := x.Op.level()
		p.expr(x.Left, l)
		p.s(" ", x.Op.String(), " ")
		p.expr(x.Right, l+1)
	case *Is:
		p.expr(x.X, levelIs)
		p.s(" IS", not(x.Not), [...]string{"", " NULL", " TRUE", " FALSE", " UNKNOWN", " JSON", " JSON OBJECT", " JSON ARRAY", " JSON SCALAR"}[x.Test])
	case *Between:
		p.expr(x.X, levelCompare)
		p.s(not(x.Not), " BETWEEN ")
		p.opt(x.Symmetric, "SYMMETRIC ")
		p.expr(x.Low, levelConcat)
		p.s(" AND ")
		p.expr(x.High, levelConcat)
	case *In:
		p.expr(x.X, levelCompare)
		p.s(not(x.Not), " IN ")
		if x.Query != nil {
			p.subquery(x.Query)
		} else {
			p.s("(")
			p.exprs(x.List)
			p.s(")")
		}
	case *Like:
		p.expr(x.X, levelCompare)
		p.s(not(x.Not), [...]string{" LIKE ", " ILIKE ", " SIMILAR TO "}[x.Kind])
		p.expr(x.Pattern, levelConcat)
		if x.Escape != nil {
			p.s(" ESCAPE ")
			p.expr(x.Escape, levelConcat)
		}
	case *Quantified:
		p.expr(x.X, levelCompare)
		p.s(" ", x.Op.String())
		if x.All {
			p.s(" ALL ")
		} else {
			p.s(" ANY ")
		}
		if x.Query != nil {
			p.subquery(x.Query)
		} else {
			p.s("(")
			p.expr(x.Array, levelOr)
			p.s(")")
		}
	case *Exists:
		p.s("EXISTS ")
		p.subquery(x.Query)
	case *Subquery:
		p.subquery(x.Query)
	case *AtTimeZone:
		p.expr(x.X, levelZone)
		p.s(" AT TIME ZONE ")
		p.expr(x.Zone, levelPostfix)
	case *Subscript:
		p.based(x.X, false)
		p.s("[")
		p.expr(x.Index, levelOr)
		p.s("]")
	case *Field:
		p.based(x.X, true)
		p.s(".", quoteIdent(x.Name.Text))
	case *Cast:
		p.cast(x)
	case *Case:
		p.caseOf(x)
	case *Call:
		p.call(x)
	case *Row:
		p.s("ROW(")
		p.exprs(x.Items)
		p.s(")")
	case *Array:
		p.s("ARRAY")
		if x.Query != nil {
			p.subquery(x.Query)
			return
		}
		p.s("[")
		p.exprs(x.Items)
		p.s("]")
	case *Map:
		p.s("MAP[")
		join(p, x.Entries, func(e MapEntry) {
			p.expr(e.Key, levelOr)
			p.s(", ")
			p.expr(e.Value, levelOr)
		})
		p.s("]")
	default:
		p.literal(x)
	}
}

func (p *printer) literal(x Expr) {
	switch x := x.(type) {
	case *NumberLit:
		p.s(x.Text)
	case *StringLit:
		p.s(quoteString(x.Value))
	case *BinaryLit:
		p.s("X'", hex.EncodeToString(x.Value), "'")
	case *BoolLit:
		if x.Value {
			p.s("TRUE")
		} else {
			p.s("FALSE")
		}
	case *NullLit:
		p.s("NULL")
	case *Default:
		p.s("DEFAULT")
	case *TemporalLit:
		p.s(map[TypeKind]string{TypeDate: "DATE", TypeTime: "TIME", TypeTimestamp: "TIMESTAMP", TypeTimestampLTZ: "TIMESTAMP_LTZ"}[x.Kind])
		p.s(" ", quoteString(x.Text.Text))
	case *IntervalLit:
		p.interval(x)
	case *Param:
		p.s("$", number10(x.Number))
	case *Extract:
		p.s("EXTRACT(", string(x.Unit), " FROM ")
		p.expr(x.X, levelOr)
		p.s(")")
	case *Trim:
		p.trim(x)
	case *Unit:
		p.s(string(x.Unit))
	case *NamedArg:
		p.s(quoteIdent(x.Name.Text), " => ")
		p.expr(x.Value, levelOr)
	case *TableArg:
		p.tableArg(x)
	case *Descriptor:
		p.s("DESCRIPTOR")
		p.idents(x.Columns)
	case *JSONExists:
		p.s("JSON_EXISTS(")
		p.jsonPath(x.X, x.Path)
		p.behavior(x.OnError, nil, "ERROR")
		p.s(")")
	case *JSONValue:
		p.s("JSON_VALUE(")
		p.jsonPath(x.X, x.Path)
		p.returning(x.Returning)
		p.behavior(x.OnEmpty, x.OnEmptyDefault, "EMPTY")
		p.behavior(x.OnError, x.OnErrorDefault, "ERROR")
		p.s(")")
	case *JSONQuery:
		p.s("JSON_QUERY(")
		p.jsonPath(x.X, x.Path)
		p.returning(x.Returning)
		p.s([...]string{"", " WITHOUT WRAPPER", " WITH CONDITIONAL WRAPPER", " WITH WRAPPER"}[x.Wrapper])
		p.behavior(x.OnEmpty, nil, "EMPTY")
		p.behavior(x.OnError, nil, "ERROR")
		p.s(")")
	}
}

func (p *printer) unary(x *Unary) {
	p.s(x.Op.String())
	// Two signs need a space between them: -- begins a comment.
	_, again := x.X.(*Unary)
	p.opt(x.Op == OpNot || again, " ")
	p.expr(x.X, x.Op.level())
}

// based writes what a subscript or a field stands behind.
func (p *printer) based(x Expr, field bool) {
	switch x := x.(type) {
	case *Subscript, *Field, *Array, *Map, *Row, *Subquery, *Case:
		p.bare(x)
		return
	case *Call:
		if !x.Bare && x.Over == nil {
			p.bare(x)
			return
		}
	case *ColumnRef:
		if !field {
			p.bare(x)
			return
		}
	}
	p.s("(")
	p.bare(x)
	p.s(")")
}

func (p *printer) cast(x *Cast) {
	if x.Colons {
		p.expr(x.X, levelPostfix)
		p.s("::")
		p.dataType(x.Type)
		return
	}
	p.opt(x.Try, "TRY_")
	p.s("CAST(")
	p.expr(x.X, levelOr)
	p.s(" AS ")
	p.dataType(x.Type)
	p.s(")")
}

func (p *printer) caseOf(x *Case) {
	p.s("CASE")
	if x.Operand != nil {
		p.s(" ")
		p.expr(x.Operand, levelOr)
	}
	for _, w := range x.Whens {
		p.s(" WHEN ")
		p.expr(w.If, levelOr)
		p.s(" THEN ")
		p.expr(w.Then, levelOr)
	}
	if x.Else != nil {
		p.s(" ELSE ")
		p.expr(x.Else, levelOr)
	}
	p.s(" END")
}

func (p *printer) trim(x *Trim) {
	p.s("TRIM(")
	if x.Chars != nil || x.Side != TrimBoth {
		p.s([...]string{"BOTH ", "LEADING ", "TRAILING "}[x.Side])
		if x.Chars != nil {
			p.expr(x.Chars, levelOr)
			p.s(" ")
		}
		p.s("FROM ")
	}
	p.expr(x.X, levelOr)
	p.s(")")
}

func (p *printer) interval(x *IntervalLit) {
	p.s("INTERVAL ")
	p.opt(x.Negative, "-")
	p.s(quoteString(x.Text.Text))
	if x.Unit != nil {
		p.s(" ")
		p.qualifier(x.Unit)
	}
}

func (p *printer) jsonPath(x, path Expr) {
	p.expr(x, levelOr)
	p.s(", ")
	p.expr(path, levelOr)
}

func (p *printer) returning(t *DataType) {
	if t != nil {
		p.s(" RETURNING ")
		p.dataType(t)
	}
}

func (p *printer) behavior(b JSONBehavior, x Expr, on string) {
	if b == JSONUnstated {
		return
	}
	p.s(" ", strings.Join(b.words(), " "))
	if x != nil {
		p.s(" ")
		p.expr(x, levelOr)
	}
	p.s(" ON ", on)
}

func (p *printer) tableArg(x *TableArg) {
	p.s("TABLE ")
	if x.Query != nil {
		p.subquery(x.Query)
	} else {
		p.s(x.Table.String())
	}
	if x.PartitionBy != nil {
		p.s(" PARTITION BY (")
		p.exprs(x.PartitionBy)
		p.s(")")
	}
	if x.OrderBy != nil {
		p.s(" ORDER BY (")
		p.orderItems(x.OrderBy)
		p.s(")")
	}
}

// call writes a function with the grammar of its own where it has one.
func (p *printer) call(c *Call) {
	p.s([...]string{"", "RUNNING ", "FINAL "}[c.Matching])
	fn := ""
	if len(c.Name) == 1 {
		fn = strings.ToUpper(c.Name[0].Text)
	}
	if c.Bare {
		p.s(c.Name[0].Text)
		return
	}
	unit := func(i int) bool {
		if i < len(c.Args) {
			_, ok := c.Args[i].(*Unit)
			return ok
		}
		return false
	}
	plain := !c.Distinct && !c.Star && c.OrderBy == nil
	for _, a := range c.Args {
		switch a.(type) {
		case *NamedArg, *TableArg:
			plain = false
		}
	}
	switch {
	case fn == "POSITION" && len(c.Args) == 2 && plain && c.OnNull == OnNullUnstated:
		p.s(c.Name[0].Text, "(")
		p.expr(c.Args[0], levelConcat)
		p.s(" IN ")
		p.expr(c.Args[1], levelOr)
		p.s(")")
	case (fn == "CEIL" || fn == "CEILING" || fn == "FLOOR") && len(c.Args) == 2 && unit(1):
		p.s(c.Name[0].Text, "(")
		// Behind an interval without parentheses, TO would be read as the interval's.
		if _, ok := c.Args[0].(*IntervalLit); ok {
			p.expr(c.Args[0], levelPrimary+1)
		} else {
			p.expr(c.Args[0], levelPrimary)
		}
		p.s(" TO ")
		p.expr(c.Args[1], levelOr)
		p.s(")")
	case (fn == "JSON_OBJECT" && len(c.Args)%2 == 0 || fn == "JSON_OBJECTAGG" && len(c.Args) == 2) && plain:
		p.s(c.Name[0].Text, "(")
		for i := 0; i < len(c.Args); i += 2 {
			p.opt(i > 0, ", ")
			p.jsonKey(c.Args[i])
			p.s(" VALUE ")
			p.expr(c.Args[i+1], levelOr)
		}
		p.onNull(c, len(c.Args) > 0)
		p.s(")")
	default:
		p.s(functionName(c.Name, (fn == "TIMESTAMPADD" || fn == "TIMESTAMPDIFF") && unit(0)), "(")
		p.opt(c.Star, "*")
		p.opt(c.Distinct, "DISTINCT ")
		p.exprs(c.Args)
		if c.OrderBy != nil {
			p.s(" ORDER BY ")
			p.orderItems(c.OrderBy)
		}
		p.onNull(c, len(c.Args) > 0)
		p.s(")")
	}
	p.callTail(c)
}

// jsonKey writes a key so that the word KEY is read as the keyword.
func (p *printer) jsonKey(x Expr) {
	p.s("KEY ")
	if _, ok := x.(*StringLit); ok {
		p.expr(x, levelOr)
		return
	}
	p.s("(")
	p.expr(x, levelOr)
	p.s(")")
}

func (p *printer) onNull(c *Call, args bool) {
	p.opt(args && c.OnNull != OnNullUnstated, " ")
	p.s([...]string{"", "NULL ON NULL", "ABSENT ON NULL"}[c.OnNull])
}

func (p *printer) callTail(c *Call) {
	p.s([...]string{"", " IGNORE NULLS", " RESPECT NULLS"}[c.Nulls])
	if c.WithinGroup != nil {
		p.s(" WITHIN GROUP (ORDER BY ")
		p.orderItems(c.WithinGroup)
		p.s(")")
	}
	if c.Filter != nil {
		p.s(" FILTER (WHERE ")
		p.expr(c.Filter, levelOr)
		p.s(")")
	}
	if c.Over != nil {
		p.s(" OVER ")
		p.window(c.Over)
	}
}

// functionName quotes what the parser would not read as an ordinary function.
func functionName(n Name, own bool) string {
	if len(n) > 1 {
		return n.String()
	}
	w := n[0].Text
	switch strings.ToUpper(w) {
	case "LEFT", "RIGHT", "IF":
		return w
	}
	if !plainIdent(w) || reserved(w) && !bareCall(w) || !own && ownGrammar(w) {
		return backticks(w)
	}
	switch strings.ToUpper(w) {
	case "ARRAY", "MAP", "ROW", "EXISTS", "UNNEST":
		return backticks(w)
	}
	return w
}

func (p *printer) window(w *Window) {
	if w.Base.Text != "" && w.PartitionBy == nil && w.OrderBy == nil && w.Frame == nil {
		p.s(quoteIdent(w.Base.Text))
		return
	}
	p.windowSpec(w)
}

func (p *printer) windowSpec(w *Window) {
	p.s("(")
	var parts []func()
	if w.Base.Text != "" {
		parts = append(parts, func() { p.s(quoteIdent(w.Base.Text)) })
	}
	if w.PartitionBy != nil {
		parts = append(parts, func() { p.s("PARTITION BY "); p.exprs(w.PartitionBy) })
	}
	if w.OrderBy != nil {
		parts = append(parts, func() { p.s("ORDER BY "); p.orderItems(w.OrderBy) })
	}
	if f := w.Frame; f != nil {
		parts = append(parts, func() {
			p.s([...]string{"", "ROWS", "RANGE"}[f.Unit], " BETWEEN ")
			p.bound(f.Start)
			p.s(" AND ")
			p.bound(f.End)
		})
	}
	for i, part := range parts {
		p.opt(i > 0, " ")
		part()
	}
	p.s(")")
}

func (p *printer) bound(b Bound) {
	if b.Distance != nil {
		p.expr(b.Distance, levelConcat)
	}
	p.s([...]string{"", "UNBOUNDED PRECEDING", " PRECEDING", "CURRENT ROW", " FOLLOWING", "UNBOUNDED FOLLOWING"}[b.Kind])
}
