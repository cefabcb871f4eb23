package parser

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// gen makes random trees of the kind that the parser makes. left bounds their depth.
type gen struct {
	*rapid.T
	left int
}

func (g gen) deeper() gen { g.left--; return g }

func (g gen) n(most int) int { return rapid.IntRange(0, most).Draw(g.T, "n") }

func (g gen) flip() bool { return rapid.Bool().Draw(g.T, "flip") }

func pick[T any](g gen, from ...T) T { return from[g.n(len(from)-1)] }

// list makes least to least+2 items, nil for none.
func list[T any](g gen, least int, item func() T) []T {
	var out []T
	for range least + g.n(2) {
		out = append(out, item())
	}
	return out
}

// words are names that are keywords somewhere, and some that are nowhere.
var words = []string{"a", "b", "T1", "date", "order", "Select", "value", "key", "end", "interval", "row", "rows", "range", "partition", "unbounded",
	"current", "running", "final", "left", "if", "exists", "array", "map", "timestamp", "time", "both", "from", "offset", "window", "full", "outer",
	"semi", "anti", "set", "similar", "overlaps", "ilike", "lateral", "unnest", "table", "primary", "watermark", "constraint", "metadata", "comment",
	"current_date", "cast", "trim", "position", "substring", "extract", "rollup", "cube", "grouping", "pattern", "permute", "last", "first", "next",
	"at", "over", "filter", "within", "ignore", "null", "default", "values", "with", "as", "x y", "1a", "a`b", "ü", "$", "like", "over", "descriptor",
	"json_object", "json_value", "try_cast", "timestampadd", "ceil", "floor", "overlay", "day", "second", "to", "for", "by", "tables", "catalog", "extended"}

func (g gen) ident() Ident { return Ident{Text: rapid.SampledFrom(words).Draw(g.T, "word")} }

func (g gen) idents() []Ident { return list(g, 1, g.ident) }

func (g gen) name() Name { return Name(list(g, 1, g.ident)) }

func (g gen) maybeIdent() Ident {
	if g.flip() {
		return Ident{}
	}
	return g.ident()
}

func (g gen) lit() Literal {
	return Literal{Text: rapid.SampledFrom([]string{"", "x", "it's", "a\nb", "1-2", "*/", "--"}).Draw(g.T, "text")}
}

func (g gen) maybeLit() *Literal {
	if g.flip() {
		return nil
	}
	l := g.lit()
	return &l
}

func (g gen) maybe(x func() Expr) Expr {
	if g.flip() {
		return nil
	}
	return x()
}

func (g gen) digits() *int {
	if g.flip() {
		return nil
	}
	n := g.n(9)
	return &n
}

func (g gen) exprs(least int) []Expr { return list(g, least, g.expr) }

func (g gen) leaf() Expr {
	switch g.n(8) {
	case 0:
		return &NumberLit{Text: "12"}
	case 1:
		return &NumberLit{Kind: Decimal, Text: pick(g, "1.5", ".5", "2.")}
	case 2:
		return &NumberLit{Kind: Float, Text: "1e-3"}
	case 3:
		return &StringLit{Value: g.lit().Text}
	case 4:
		return pick[Expr](g, &BoolLit{Value: true}, &BoolLit{}, &NullLit{}, &Default{}, &BinaryLit{Value: []byte{0, 255}}, &BinaryLit{Value: []byte{}})
	case 5:
		return &TemporalLit{Kind: pick(g, TypeDate, TypeTime, TypeTimestamp, TypeTimestampLTZ), Text: g.lit()}
	case 6:
		x := &IntervalLit{Negative: g.flip(), Text: g.lit()}
		if g.flip() {
			x.Unit = g.qualifier()
		}
		return x
	case 7:
		return &Param{Number: 1 + g.n(3)}
	}
	return &ColumnRef{Name: g.name()}
}

func (g gen) qualifier() *IntervalQualifier {
	q := &IntervalQualifier{From: pick[TimeUnit](g, "YEAR", "DAY", "SECOND", "HOUR"), Precision: g.digits()}
	if g.flip() {
		q.To = pick[TimeUnit](g, "MONTH", "SECOND")
	}
	if q.To == "SECOND" || q.To == "" && q.From == "SECOND" && q.Precision != nil {
		q.Fraction = g.digits()
	}
	return q
}

func (g gen) expr() Expr {
	if g.left <= 0 {
		return g.leaf()
	}
	g = g.deeper()
	switch g.n(24) {
	case 0:
		return &Unary{Op: pick(g, OpNot, OpNeg, OpPlus), X: g.expr()}
	case 1, 2, 3:
		return &Binary{Op: pick(g, OpOr, OpAnd, OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpDistinct, OpNotDistinct, OpOverlaps, OpConcat, OpAdd, OpSub,
			OpMul, OpDiv, OpMod), Left: g.expr(), Right: g.expr()}
	case 4:
		return &Is{X: g.expr(), Not: g.flip(), Test: Test(1 + g.n(7))}
	case 5:
		return &Between{X: g.expr(), Not: g.flip(), Symmetric: g.flip(), Low: g.expr(), High: g.expr()}
	case 6:
		in := &In{X: g.expr(), Not: g.flip()}
		if g.flip() {
			in.Query = g.query()
		} else {
			in.List = g.exprs(1)
		}
		return in
	case 7:
		return &Like{X: g.expr(), Not: g.flip(), Kind: LikeKind(g.n(2)), Pattern: g.expr(), Escape: g.maybe(g.expr)}
	case 8:
		q := &Quantified{X: g.expr(), Op: pick(g, OpEq, OpNe, OpLt, OpLe, OpGt, OpGe), All: g.flip()}
		if g.flip() {
			q.Query = g.query()
		} else {
			q.Array = g.expr()
		}
		return q
	case 9:
		return &Exists{Query: g.query()}
	case 10:
		return &Subquery{Query: g.query()}
	case 11:
		return &Row{Items: g.exprs(0)}
	case 12:
		if g.flip() {
			return &Array{Query: g.query()}
		}
		return &Array{Items: g.exprs(0)}
	case 13:
		return &Map{Entries: list(g, 0, func() MapEntry { return MapEntry{g.expr(), g.expr()} })}
	case 14:
		return &Subscript{X: g.expr(), Index: g.expr()}
	case 15:
		return &Field{X: g.expr(), Name: g.ident()}
	case 16:
		return &Case{Operand: g.maybe(g.expr), Whens: list(g, 1, func() When { return When{g.expr(), g.expr()} }), Else: g.maybe(g.expr)}
	case 17:
		if g.flip() {
			t := g.dataType()
			t.NotNull = false
			return &Cast{X: g.expr(), Type: t, Colons: true}
		}
		return &Cast{X: g.expr(), Type: g.dataType(), Try: g.flip()}
	case 18:
		return &AtTimeZone{X: g.expr(), Zone: g.expr()}
	case 19:
		return pick[Expr](g, &Extract{Unit: "EPOCH", X: g.expr()}, &Trim{Side: TrimSide(g.n(2)), Chars: g.maybe(g.expr), X: g.expr()})
	case 20:
		return g.json()
	case 21:
		return pick[Expr](g, &Call{Name: Name{{Text: "CURRENT_DATE"}}, Bare: true},
			&Call{Name: Name{{Text: "TIMESTAMPADD"}}, Args: []Expr{&Unit{Unit: "DAY"}, g.expr(), g.expr()}},
			&Call{Name: Name{{Text: "ceil"}}, Args: []Expr{g.expr(), &Unit{Unit: "DAY"}}})
	default:
		return g.call()
	}
}

func (g gen) json() Expr {
	t := g.dataType()
	t.NotNull = false
	switch g.n(3) {
	case 0:
		return &JSONExists{X: g.expr(), Path: g.expr(), OnError: pick(g, JSONUnstated, JSONTrue, JSONFalse, JSONUnknown, JSONError)}
	case 1:
		return &JSONQuery{X: g.expr(), Path: g.expr(), Returning: t, Wrapper: JSONWrapper(g.n(3)),
			OnEmpty: pick(g, JSONUnstated, JSONNull, JSONError, JSONEmptyArray, JSONEmptyObject), OnError: pick(g, JSONUnstated, JSONNull, JSONEmptyArray)}
	case 2:
		return &JSONValue{X: g.expr(), Path: g.expr(), OnEmpty: JSONDefault, OnEmptyDefault: g.expr(), OnError: JSONNull}
	}
	c := &Call{Name: Name{{Text: pick(g, "JSON_OBJECT", "JSON_ARRAY", "JSON_OBJECTAGG")}}, OnNull: OnNull(g.n(2)), Args: []Expr{g.expr(), g.expr()}}
	return c
}

func (g gen) call() *Call {
	c := &Call{Name: g.name(), Matching: Matching(g.n(2)), Nulls: NullHandling(g.n(2)), Filter: g.maybe(g.expr)}
	if c.Matching != MatchingUnstated {
		c.Name = Name{{Text: "f"}} // RUNNING and FINAL stand before plain names
	}
	if c.Star = g.flip(); !c.Star {
		c.Args = list(g, 1, g.argument)
		c.Distinct = g.flip()
		last := c.Args[len(c.Args)-1]
		for n, ok := last.(*NamedArg); ok; n, ok = last.(*NamedArg) {
			last = n.Value
		}
		switch last.(type) {
		case *TableArg, *Subquery: // an order behind them is theirs
		default:
			c.OrderBy = g.orderItems(0)
		}
	}
	c.WithinGroup = g.orderItems(0)
	if g.flip() {
		c.Over = g.window()
	}
	return c
}

func (g gen) argument() Expr {
	switch g.n(6) {
	case 0:
		return &NamedArg{Name: g.ident(), Value: g.expr()}
	case 1:
		return &TableArg{Table: g.name(), PartitionBy: g.exprs(0), OrderBy: g.orderItems(0)}
	case 2:
		return &TableArg{Query: g.query(), PartitionBy: g.exprs(0), OrderBy: g.orderItems(0)}
	case 3:
		return &Descriptor{Columns: g.idents()}
	}
	return g.expr()
}

func (g gen) window() *Window {
	w := &Window{Base: g.maybeIdent(), PartitionBy: g.exprs(0), OrderBy: g.orderItems(0)}
	if g.flip() {
		bound := func() Bound {
			b := Bound{Kind: BoundKind(1 + g.n(4))}
			if b.Kind == Preceding || b.Kind == Following {
				b.Distance = g.expr()
			}
			return b
		}
		w.Frame = &Frame{Unit: FrameUnit(1 + g.n(1)), Start: bound(), End: bound()}
	}
	return w
}

func (g gen) orderItems(least int) []OrderItem {
	return list(g, least, func() OrderItem { return OrderItem{g.expr(), g.flip(), NullOrder(g.n(2))} })
}

func (g gen) dataType() *DataType {
	t := &DataType{Kind: TypeKind(g.n(int(TypeJSON))), NotNull: g.flip()}
	if g.left <= 0 && (t.Kind >= TypeArray && t.Kind <= TypeRow) {
		t.Kind = TypeInt
	}
	g = g.deeper()
	switch t.Kind {
	case TypeUser:
		t.Name = g.name()
	case TypeChar, TypeVarchar, TypeBinary, TypeVarbinary:
		t.Length = g.digits()
	case TypeDecimal:
		if t.Precision = g.digits(); t.Precision != nil {
			t.Scale = g.digits()
		}
	case TypeTime, TypeTimestamp, TypeTimestampLTZ, TypeTimestampTZ:
		t.Precision = g.digits()
	case TypeInterval:
		if g.flip() {
			t.Interval = g.qualifier()
		}
	case TypeArray, TypeMultiset:
		t.Elem = g.dataType()
	case TypeMap:
		t.Key, t.Elem = g.dataType(), g.dataType()
	case TypeRow:
		t.Fields = list(g, 0, func() RowField { return RowField{g.ident(), g.dataType(), g.maybeLit()} })
	case TypeRaw:
		t.Raw = list(g, 1, g.lit)
	}
	return t
}

func (g gen) query() Query {
	if g.left <= 0 {
		return &TableQuery{Name: g.name()}
	}
	g = g.deeper()
	switch g.n(8) {
	case 0:
		return &With{Recursive: g.flip(), Body: g.query(), Tables: list(g, 1, func() CommonTable {
			return CommonTable{g.ident(), list(g, 0, g.ident), g.query()}
		})}
	case 1:
		o := &Ordered{Body: g.query(), OrderBy: g.orderItems(0), Limit: g.maybe(g.expr), Offset: g.maybe(g.expr)}
		if o.OrderBy == nil && o.Limit == nil && o.Offset == nil {
			return o.Body
		}
		return o
	case 2, 3:
		return &SetOp{Kind: SetKind(1 + g.n(2)), All: g.flip(), Left: g.query(), Right: g.query()}
	case 4:
		return &Values{Rows: list(g, 1, func() []Expr {
			row := g.exprs(1)
			if _, ok := row[0].(*Row); ok && len(row) == 1 { // which would be the row itself
				return []Expr{g.leaf()}
			}
			return row
		})}
	}
	s := &Select{Hints: g.hints(), Distinct: g.flip(), From: list(g, 0, g.tableRef), Where: g.maybe(g.expr), Having: g.maybe(g.expr), Qualify: g.maybe(g.expr)}
	s.Items = list(g, 1, func() SelectItem {
		if g.n(3) == 0 {
			star := &Star{}
			if g.flip() {
				star.Qualifier = g.name()
			}
			return SelectItem{X: star}
		}
		return SelectItem{g.expr(), g.maybeIdent()}
	})
	if g.flip() {
		s.GroupBy = &GroupBy{Distinct: g.flip(), Items: list(g, 1, func() GroupItem { return g.groupItem(2) })}
	}
	s.Windows = list(g, 0, func() NamedWindow { return NamedWindow{g.ident(), g.window()} })
	return s
}

// groupItem makes any item at level 2 and inside GROUPING SETS, and sets of expressions inside the others.
func (g gen) groupItem(level int) GroupItem {
	g = g.deeper()
	if level == 0 || g.left <= 0 || g.flip() {
		return GroupItem{Exprs: g.exprs(0)}
	}
	kind := pick(g, GroupRollup, GroupCube, GroupingSets)
	inner := 0
	if kind == GroupingSets {
		inner = level
	}
	return GroupItem{Kind: kind, Items: list(g, 1, func() GroupItem { return g.groupItem(inner) })}
}

func (g gen) hints() []Hint {
	if g.n(4) > 0 {
		return nil
	}
	text := func() HintText {
		return pick(g, HintText{Kind: HintString, Text: g.lit().Text}, HintText{Kind: HintNumber, Text: "5"}, HintText{Text: g.ident().Text}, HintText{Text: "a.b"})
	}
	return list(g, 1, func() Hint {
		return Hint{g.ident(), list(g, 0, func() HintArg {
			a := HintArg{Key: text()}
			if g.flip() {
				v := text()
				a.Value = &v
			}
			return a
		})}
	})
}

func (g gen) alias() Alias {
	a := Alias{Name: g.maybeIdent()}
	if a.Name.Text != "" {
		a.Columns = list(g, 0, g.ident)
	}
	return a
}

func (g gen) sample() *Sample {
	if g.n(3) > 0 {
		return nil
	}
	return &Sample{Method: pick(g, "BERNOULLI", "SYSTEM"), Percent: g.expr(), Seed: g.maybe(g.expr)}
}

func (g gen) tableRef() TableRef {
	if g.left <= 0 {
		return &Table{Name: g.name()}
	}
	g = g.deeper()
	switch g.n(7) {
	case 0:
		return &Derived{Lateral: g.flip(), Query: g.query(), Sample: g.sample(), Alias: g.alias()}
	case 1:
		c := g.call()
		c.Matching = MatchingUnstated
		if name := strings.ToUpper(c.Name[0].Text); len(c.Name) == 1 && ownGrammar(name) {
			c.Name = Name{{Text: "f"}} // in FROM only plain functions stand
		}
		return &TableFunction{Lateral: g.flip(), Call: c, Alias: g.alias()}
	case 2:
		return &Unnest{Lateral: g.flip(), Args: g.exprs(1), Ordinality: g.flip(), Alias: g.alias()}
	case 3, 4:
		j := &Join{Kind: JoinKind(1 + g.n(6)), Left: g.tableRef(), Right: g.tableRef()}
		switch {
		case j.Kind == CrossJoin:
		case g.flip():
			j.On = g.expr()
		case g.flip():
			j.Using = g.idents()
		default:
			if j.Natural = j.Kind <= FullJoin; !j.Natural {
				j.On = g.expr()
			}
		}
		return j
	case 5:
		return g.match()
	}
	return &Table{Name: g.name(), Hints: g.hints(), AsOf: g.maybe(g.expr), Sample: g.sample(), Alias: g.alias()}
}

func (g gen) match() TableRef {
	m := &MatchRecognize{Input: g.tableRef(), PartitionBy: g.exprs(0), OrderBy: g.orderItems(0), RowsPerMatch: RowsPerMatch(g.n(5)), Pattern: g.pattern(),
		Within: g.maybe(g.expr), Alias: g.alias()}
	m.Measures = list(g, 0, func() Measure { return Measure{g.expr(), g.ident()} })
	m.Subsets = list(g, 0, func() Subset { return Subset{g.ident(), g.idents()} })
	m.Defines = list(g, 0, func() Define { return Define{g.ident(), g.expr()} })
	if g.flip() {
		m.Skip = &Skip{Kind: SkipKind(1 + g.n(3))}
		if m.Skip.Kind >= SkipToFirst {
			m.Skip.Variable = g.ident()
		}
	}
	return m
}

func (g gen) pattern() Pattern {
	if g.left <= 0 {
		return &PatternVar{Name: g.ident()}
	}
	g = g.deeper()
	two := func() []Pattern { return append(list(g, 0, g.pattern), g.pattern(), g.pattern()) }
	switch g.n(7) {
	case 0:
		return &PatternSeq{Items: two()}
	case 1:
		return &PatternAlt{Items: two()}
	case 2, 3:
		r := &PatternRepeat{X: g.pattern(), Min: g.n(3), Max: -1, Reluctant: g.flip()}
		if g.flip() {
			r.Max = r.Min + g.n(3)
		}
		return r
	case 4:
		return &PatternPermute{Items: list(g, 1, g.pattern)}
	case 5:
		return &PatternExclude{X: g.pattern()}
	case 6:
		return pick[Pattern](g, &PatternAnchor{}, &PatternAnchor{End: true}, &PatternSeq{})
	}
	return &PatternVar{Name: g.ident()}
}

// TestRandomTrees: a random tree comes back from its printed form.
func TestRandomTrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gen{t, 4}
		var want Statement
		switch g.n(3) {
		case 0:
			want = g.definition()
		case 1:
			want = g.manipulation()
		default:
			want = &QueryStatement{Query: g.query()}
		}
		printed := Print(&Script{Statements: []Statement{want}})
		script, err := Parse("x.sql", printed)
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if len(script.Statements) != 1 || !Equal(script.Statements[0], want) {
			t.Fatalf("printed\n%s\nand read back\n%s", printed, Print(script))
		}
	})
}
