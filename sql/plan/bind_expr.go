package plan

import (
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// boundColumn is a column that * stands for. The expression is there for its place alone.
type boundColumn struct {
	parser.Expr
	index int
}

// exprPlace is where expressions are bound: a relation with its names. A scalar subquery adds a column to the relation.
type exprPlace struct {
	scope *scope
	in    *rel
	// plain is in without what subqueries have added to it, nil where that is in: their domains are made of it, or each
	// would hold all before it.
	plain rel
	// grouped is set behind a GROUP BY: names and aggregates become columns of the aggregate.
	grouped *grouping
	// ranks takes ROW_NUMBER() OVER; nil where it may not stand.
	ranks *[]rankCall
}

type rankCall struct {
	call   *parser.Call
	column int
}

// grouping is the aggregate that a SELECT with GROUP BY or aggregates comes to.
type grouping struct {
	before *exprPlace // the rows that are grouped
	keys   []expr.Expr
	wrote  []parser.Expr // what each key was written as
	calls  []operator.AggCall
	args   []expr.Expr // what is aggregated and filtered by; behind the keys
	// sets are the keys, in order, of each of the grouping sets; nil: one set of all.
	sets [][]int
	// groupings are the keys that each GROUPING asks for.
	groupings [][]int
	// extras add a column each behind all others: what subqueries give.
	extras []func(groups rel) rel
}

// expr binds an expression.
func (b *binder) expr(p *exprPlace, x parser.Expr) (expr.Expr, error) {
	if b.depth++; b.depth > 400 {
		return nil, b.fail(errs.SQLSyntax, x.Position(), "the expression is nested too deeply").WithHint("400 levels are possible")
	}
	defer func() { b.depth-- }()
	if p.grouped != nil {
		if e := b.groupKey(p, x); e != nil {
			return e, nil
		}
	}
	e, err := b.bare(p, x)
	if err != nil {
		return nil, b.place(err, x.Position())
	}
	return e, nil
}

// groupKey is the column of the group key that x is; nil if it is none.
func (b *binder) groupKey(p *exprPlace, x parser.Expr) expr.Expr {
	switch x.(type) {
	case *parser.NumberLit, *parser.StringLit, *parser.BoolLit, *parser.NullLit:
		return nil
	}
	for i, w := range p.grouped.wrote {
		if parser.Equal(w, x) {
			return &expr.Column{Index: i, T: p.grouped.keyType(i)}
		}
	}
	if hasQuery(x) { // binding it again would ask again
		return nil
	}
	before := *p.grouped.before
	e, err := b.expr(&before, x)
	if err != nil {
		return nil
	}
	text := e.String()
	for i, k := range p.grouped.keys {
		if k.String() == text {
			return &expr.Column{Index: i, T: p.grouped.keyType(i)}
		}
	}
	return nil
}

func (b *binder) exprs(p *exprPlace, xs ...parser.Expr) ([]expr.Expr, error) {
	var out []expr.Expr
	for _, x := range xs {
		e, err := b.expr(p, x)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// call binds arguments and resolves a function or operator over them.
func (b *binder) call(p *exprPlace, name string, xs ...parser.Expr) (expr.Expr, error) {
	b.settle(p, xs)
	args, err := b.exprs(p, xs...)
	if err != nil {
		return nil, err
	}
	return expr.Resolve(name, args)
}

var binaryNames = map[parser.Op]string{
	parser.OpOr: "OR", parser.OpAnd: "AND", parser.OpEq: "=", parser.OpNe: "<>", parser.OpLt: "<", parser.OpLe: "<=", parser.OpGt: ">", parser.OpGe: ">=",
	parser.OpDistinct: "IS DISTINCT FROM", parser.OpNotDistinct: "IS NOT DISTINCT FROM", parser.OpConcat: "||", parser.OpAdd: "+", parser.OpSub: "-",
	parser.OpMul: "*", parser.OpDiv: "/", parser.OpMod: "%", parser.OpOverlaps: "OVERLAPS",
}

func not(name string, no bool) string {
	if no {
		return "NOT " + name
	}
	return name
}

func (b *binder) bare(p *exprPlace, x parser.Expr) (expr.Expr, error) {
	switch x := x.(type) {
	case *parser.ColumnRef:
		if p.grouped != nil {
			if e, err := b.column(p.grouped.before.scope, x); err == nil {
				if c, ok := e.(*expr.Column); !ok || c.Index >= 0 {
					return nil, b.fail(errs.SQLGrouping, x.Pos, "column %s is neither grouped by nor aggregated", x.Name).
						WithHint("add it to GROUP BY, or say which of its values is meant: MAX(%s)", x.Name)
				}
				return e, nil
			}
			return b.column(p.grouped.before.scope, x)
		}
		return b.column(p.scope, x)
	case *parser.NumberLit:
		return expr.Number(x.Text)
	case *parser.StringLit:
		return expr.Str(x.Value), nil
	case *parser.BinaryLit:
		return expr.Binary(x.Value), nil
	case *parser.BoolLit:
		return expr.Bool(x.Value), nil
	case *parser.NullLit:
		return expr.Null(), nil
	case *parser.TemporalLit:
		return b.temporal(x)
	case *parser.IntervalLit:
		return b.interval(x)
	case *parser.Unary:
		if n, ok := x.X.(*parser.NumberLit); ok && x.Op == parser.OpNeg {
			return expr.Number("-" + n.Text)
		}
		return b.call(p, map[parser.Op]string{parser.OpNot: "NOT", parser.OpPlus: "+", parser.OpNeg: "-"}[x.Op], x.X)
	case *parser.Binary:
		return b.call(p, binaryNames[x.Op], x.Left, x.Right)
	case *parser.Is:
		name := map[parser.Test]string{parser.IsNull: "NULL", parser.IsTrue: "TRUE", parser.IsFalse: "FALSE", parser.IsUnknown: "UNKNOWN"}[x.Test]
		if name != "" {
			return b.call(p, "IS "+not(name, x.Not), x.X)
		}
		args, err := b.exprs(p, x.X)
		if err != nil {
			return nil, err
		}
		if kind := map[parser.Test]string{parser.IsJSONObject: "OBJECT", parser.IsJSONArray: "ARRAY", parser.IsJSONScalar: "SCALAR"}[x.Test]; kind != "" {
			args = append(args, expr.Str(kind))
		}
		return expr.Resolve("IS "+not("JSON", x.Not), args)
	case *parser.Between:
		if x.Symmetric {
			e, err := b.exprs(p, x.X, x.Low, x.High)
			if err != nil {
				return nil, err
			}
			low, err := expr.Resolve("LEAST", e[1:])
			if err != nil {
				return nil, err
			}
			high, err := expr.Resolve("GREATEST", e[1:])
			if err != nil {
				return nil, err
			}
			return expr.Resolve(not("BETWEEN", x.Not), []expr.Expr{e[0], low, high})
		}
		return b.call(p, not("BETWEEN", x.Not), x.X, x.Low, x.High)
	case *parser.In:
		if x.Query != nil {
			return b.inValue(p, x)
		}
		return b.call(p, not("IN", x.Not), append([]parser.Expr{x.X}, x.List...)...)
	case *parser.Exists:
		return b.existsValue(p, x)
	case *parser.Quantified:
		return b.quantified(p, x)
	case *parser.Like:
		name := not([...]string{"LIKE", "ILIKE", "SIMILAR TO"}[x.Kind], x.Not)
		if x.Escape != nil {
			return b.call(p, name, x.X, x.Pattern, x.Escape)
		}
		return b.call(p, name, x.X, x.Pattern)
	case *parser.Case:
		return b.caseOf(p, x)
	case *parser.Cast:
		t, err := b.typeOf(x.Type)
		if err != nil {
			return nil, err
		}
		if prm, ok := x.X.(*parser.Param); ok && b.serves {
			if at := b.paramAt(prm); at.Type.Kind == row.Null {
				at.Type = t.Nullable()
			}
		}
		e, err := b.expr(p, x.X)
		if err != nil {
			return nil, err
		}
		return expr.CastTo(e, t, x.Try)
	case *parser.AtTimeZone:
		return b.call(p, "AT TIME ZONE", x.X, x.Zone)
	case *parser.Extract:
		e, err := b.expr(p, x.X)
		if err != nil {
			return nil, err
		}
		return expr.Resolve("EXTRACT", []expr.Expr{expr.Str(string(x.Unit)), e})
	case *parser.Trim:
		args, err := b.exprs(p, x.X)
		if err != nil {
			return nil, err
		}
		chars := expr.Expr(expr.Str(" "))
		if x.Chars != nil {
			if chars, err = b.expr(p, x.Chars); err != nil {
				return nil, err
			}
		}
		side := [...]string{"BOTH", "LEADING", "TRAILING"}[x.Side]
		return expr.Resolve("TRIM", []expr.Expr{expr.Str(side), chars, args[0]})
	case *parser.Row:
		return b.call(p, "ROW", x.Items...)
	case *parser.Array:
		if x.Query != nil {
			return nil, b.fail(errs.NotBuiltYet, x.Pos, "ARRAY of a query is not built yet")
		}
		return b.call(p, "ARRAY", x.Items...)
	case *parser.Map:
		var xs []parser.Expr
		for _, m := range x.Entries {
			xs = append(xs, m.Key, m.Value)
		}
		return b.call(p, "MAP", xs...)
	case *parser.Subscript:
		return b.call(p, "[]", x.X, x.Index)
	case *parser.Field:
		e, err := b.expr(p, x.X)
		if err != nil {
			return nil, err
		}
		return expr.Resolve(".", []expr.Expr{e, expr.Str(x.Name.Text)})
	case *parser.Call:
		return b.function(p, x)
	case *parser.Unit:
		return expr.Str(string(x.Unit)), nil
	case *parser.Subquery:
		return b.scalar(p, x)
	case *parser.Star:
		return nil, b.fail(errs.SQLSyntax, x.Pos, "* stands for columns and is no value").WithHint("write COUNT(*), or the names of the columns")
	case *boundColumn:
		if p.grouped != nil {
			return nil, b.fail(errs.SQLGrouping, x.Position(), "* among groups").WithHint("name the columns that are grouped by")
		}
		return &expr.Column{Index: x.index, T: p.scope.cols[x.index].typ}, nil
	case *parser.Param:
		return b.param(x)
	}
	return nil, b.fail(errs.NotBuiltYet, x.Position(), "this expression is not built yet")
}

func (b *binder) caseOf(p *exprPlace, x *parser.Case) (expr.Expr, error) {
	var args []expr.Expr
	for _, w := range x.Whens {
		cond := w.If
		if x.Operand != nil {
			cond = &parser.Binary{Pos: w.If.Position(), Op: parser.OpEq, OpPos: w.If.Position(), Left: x.Operand, Right: w.If}
		}
		e, err := b.exprs(p, cond, w.Then)
		if err != nil {
			return nil, err
		}
		args = append(args, e...)
	}
	if x.Else != nil {
		e, err := b.expr(p, x.Else)
		if err != nil {
			return nil, err
		}
		args = append(args, e)
	}
	return expr.Resolve("CASE", args)
}

func (b *binder) temporal(x *parser.TemporalLit) (expr.Expr, error) {
	digits := 0
	if _, frac, ok := strings.Cut(x.Text.Text, "."); ok {
		digits = min(len(strings.TrimRight(frac, "Zz ")), 9)
	}
	t := row.Type{NotNull: true}
	switch x.Kind {
	case parser.TypeDate:
		t.Kind = row.Date
	case parser.TypeTime:
		t.Kind, t.Precision = row.Time, digits
	case parser.TypeTimestamp:
		t.Kind, t.Precision = row.Timestamp, digits
	default:
		t.Kind, t.Precision = row.TimestampLTZ, digits
	}
	return expr.ParseLiteral(t, x.Text.Text, b.env.Zone)
}

// interval reads INTERVAL '..' unit. With a single unit the text is a number of it.
func (b *binder) interval(x *parser.IntervalLit) (expr.Expr, error) {
	bad := func() error {
		return b.fail(errs.SQLSyntax, x.Text.Pos, "%q is no interval", x.Text.Text).WithHint("INTERVAL '10' MINUTE, INTERVAL '1-6' YEAR TO MONTH, INTERVAL '2 03:04:05.6' DAY TO SECOND")
	}
	months, micros, ok := parseInterval(x)
	if !ok {
		return nil, bad()
	}
	if x.Negative {
		months, micros = -months, -micros
	}
	if months != 0 && micros != 0 {
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "an interval of both months and time is not built yet")
	}
	if q := x.Unit; months != 0 || q != nil && (q.From == "YEAR" || q.From == "MONTH") {
		return expr.Int(row.Type{Kind: row.IntervalMonths, NotNull: true}, months), nil
	}
	return expr.Int(row.Type{Kind: row.IntervalTime, NotNull: true}, micros), nil
}

var unitMicros = map[string]int64{"DAY": 86400e6, "HOUR": 3600e6, "MINUTE": 60e6, "SECOND": 1e6, "WEEK": 7 * 86400e6, "MILLISECOND": 1000, "MICROSECOND": 1}

func parseInterval(x *parser.IntervalLit) (months, micros int64, ok bool) {
	text := strings.TrimSpace(x.Text.Text)
	sign := int64(1)
	if t, found := strings.CutPrefix(text, "-"); found {
		sign, text = -1, t
	}
	seconds := func(s string) (int64, bool) {
		whole, frac, _ := strings.Cut(s, ".")
		w, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || len(frac) > 6 {
			return 0, false
		}
		f, err := strconv.ParseInt((frac + "000000")[:6], 10, 64)
		return w*1e6 + f, err == nil
	}
	if x.Unit == nil {
		// Postgres: pairs of a number and a unit.
		words := strings.Fields(text)
		if len(words)%2 != 0 {
			return 0, 0, false
		}
		for i := 0; i < len(words); i += 2 {
			n, err := strconv.ParseInt(words[i], 10, 64)
			unit := strings.TrimSuffix(strings.ToUpper(words[i+1]), "S")
			switch {
			case err != nil:
				return 0, 0, false
			case unit == "YEAR" || unit == "MON" || unit == "MONTH":
				months += n * map[string]int64{"YEAR": 12, "MON": 1, "MONTH": 1}[unit]
			case unitMicros[unit] != 0:
				micros += n * unitMicros[unit]
			default:
				return 0, 0, false
			}
		}
		return sign * months, sign * micros, true
	}
	from, to := string(x.Unit.From), string(x.Unit.To)
	if to == "" {
		switch from {
		case "YEAR", "MONTH":
			n, err := strconv.ParseInt(text, 10, 32)
			if from == "YEAR" {
				n *= 12
			}
			return sign * n, 0, err == nil
		case "SECOND":
			micros, ok = seconds(text)
			return 0, sign * micros, ok
		}
		n, err := strconv.ParseInt(text, 10, 40)
		return 0, sign * n * unitMicros[from], err == nil && unitMicros[from] != 0
	}
	if from == "YEAR" {
		y, m, found := strings.Cut(text, "-")
		yy, err1 := strconv.ParseInt(y, 10, 32)
		mm, err2 := strconv.ParseInt(m, 10, 32)
		return sign * (yy*12 + mm), 0, found && err1 == nil && err2 == nil && mm < 12
	}
	units := []string{"DAY", "HOUR", "MINUTE", "SECOND"}
	at := -1
	for i, u := range units {
		if u == from {
			at = i
		}
	}
	parts := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ':' })
	if at < 0 || at+len(parts) > len(units) || len(parts) == 0 || units[at+len(parts)-1] != to {
		return 0, 0, false
	}
	for i, p := range parts {
		u := units[at+i]
		if u == "SECOND" {
			s, ok := seconds(p)
			if !ok {
				return 0, 0, false
			}
			micros += s
			continue
		}
		n, err := strconv.ParseInt(p, 10, 40)
		if err != nil {
			return 0, 0, false
		}
		micros += n * unitMicros[u]
	}
	return 0, sign * micros, true
}

var aggregates = map[string]operator.AggFunc{
	"COUNT": operator.Count, "SUM": operator.Sum, "AVG": operator.Avg, "MIN": operator.Min, "MAX": operator.Max,
	"VAR_POP": operator.VarPop, "VAR_SAMP": operator.VarSamp, "VARIANCE": operator.VarSamp,
	"STDDEV_POP": operator.StddevPop, "STDDEV_SAMP": operator.StddevSamp, "STDDEV": operator.StddevSamp, "SINGLE_VALUE": operator.Single,
	"FIRST_VALUE": operator.FirstValue, "LAST_VALUE": operator.LastValue, "LISTAGG": operator.ListAgg, "STRING_AGG": operator.ListAgg,
	"ARRAY_AGG": operator.ArrayAgg, "COLLECT": operator.Collect,
	"EVERY": operator.Min, "BOOL_AND": operator.Min, "BOOL_OR": operator.Max, // over BOOLEAN
}

// laterAggregates are told as not built yet and not as unknown.
var laterAggregates = map[string]bool{
	"RANK": true, "DENSE_RANK": true, "NTILE": true, "LEAD": true, "LAG": true, "CUME_DIST": true, "PERCENT_RANK": true, "JSON_OBJECTAGG": true, "JSON_ARRAYAGG": true}

func isAggregate(c *parser.Call) bool {
	return c.Over == nil && len(c.Name) == 1 && aggregates[strings.ToUpper(c.Name[0].Text)] != 0
}

// hasAggregate tells whether an expression calls an aggregate, not looking into subqueries.
func hasAggregate(x parser.Node) bool {
	found := false
	parser.Walk(x, func(n parser.Node) bool {
		switch n := n.(type) {
		case *parser.Subquery, *parser.Exists:
			return false
		case *parser.In:
			if n.Query != nil {
				return false
			}
		case *parser.Quantified:
			if n.Query != nil {
				return false
			}
		case *parser.Call:
			found = found || isAggregate(n)
		}
		return !found
	})
	return found
}

func (b *binder) function(p *exprPlace, x *parser.Call) (expr.Expr, error) {
	name := strings.ToUpper(x.Name.Last().Text)
	if x.Over != nil {
		if name == "ROW_NUMBER" && p.ranks != nil {
			for _, r := range *p.ranks {
				if r.call == x {
					return &expr.Column{Index: r.column, T: row.Type{Kind: row.BigInt, NotNull: true}}, nil
				}
			}
		}
		if name == "ROW_NUMBER" {
			return nil, b.fail(errs.SQLSyntax, x.Pos, "ROW_NUMBER() OVER cannot stand here").WithHint("it may be an item of SELECT, and QUALIFY may ask for it")
		}
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "%s OVER is not built yet", name)
	}
	if laterAggregates[name] {
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "%s is not built yet", name)
	}
	if isGrouping(x) {
		return b.groupingCall(p.grouped, x, name)
	}
	if isAggregate(x) {
		if p.grouped == nil {
			return nil, b.fail(errs.SQLGrouping, x.Pos, "%s cannot stand here", name).WithHint("aggregates may stand in SELECT, HAVING and ORDER BY")
		}
		return b.aggregateCall(p.grouped, x, name)
	}
	if x.Star || x.Distinct || x.Filter != nil || len(x.OrderBy) > 0 || len(x.WithinGroup) > 0 {
		return nil, b.fail(errs.SQLSyntax, x.Pos, "%s is no aggregate", name).WithHint("only aggregates take *, DISTINCT, FILTER and ORDER BY")
	}
	switch name {
	case "TUMBLE", "HOP", "SESSION", "CUMULATE", "TUMBLE_START", "TUMBLE_END", "HOP_START", "HOP_END", "SESSION_START", "SESSION_END":
		return nil, b.fail(errs.NotBuiltYet, x.Pos, "windows are not built yet")
	}
	args, err := b.exprs(p, x.Args...)
	if err != nil {
		return nil, err
	}
	if name == "JSON_OBJECT" || name == "JSON_ARRAY" {
		null := "NULL"
		if x.OnNull == parser.AbsentOnNull || x.OnNull == parser.OnNullUnstated && name == "JSON_ARRAY" {
			null = "ABSENT"
		}
		args = append([]expr.Expr{expr.Str(null)}, args...)
	}
	return expr.Resolve(name, args)
}

// aggregateCall makes an aggregate a column of the grouping.
func (b *binder) aggregateCall(g *grouping, x *parser.Call, name string) (expr.Expr, error) {
	call := operator.AggCall{Func: aggregates[name], Arg: -1, Distinct: x.Distinct, Filter: -1}
	in := row.Type{}
	xs := x.Args
	if call.Func == operator.ListAgg && len(xs) == 2 {
		var err error
		if call.Separator, err = b.separator(g, xs[1]); err != nil {
			return nil, err
		}
		xs = xs[:1]
	} else if call.Func == operator.ListAgg {
		call.Separator = ","
	}
	arg := func(e expr.Expr) int {
		text := e.String()
		for i, a := range g.args {
			if a.String() == text {
				return i
			}
		}
		g.args = append(g.args, e)
		return len(g.args) - 1
	}
	switch {
	case x.Star && call.Func == operator.Count && !x.Distinct:
	case x.Star || len(xs) != 1:
		return nil, b.fail(errs.SQLTypeMismatch, x.Pos, "%s takes one argument", name)
	default:
		if hasAggregate(x.Args[0]) {
			return nil, b.fail(errs.SQLGrouping, x.Args[0].Position(), "an aggregate inside an aggregate").WithHint("compute the inner one in a subquery of FROM")
		}
		e, err := b.expr(g.before, x.Args[0])
		if err != nil {
			return nil, err
		}
		in = e.Type()
		call.Arg = arg(e)
	}
	if x.Filter != nil {
		e, err := b.expr(g.before, x.Filter)
		if err != nil {
			return nil, err
		}
		if e.Type().Kind != row.Boolean {
			return nil, b.fail(errs.SQLTypeMismatch, x.Filter.Position(), "FILTER takes a condition, this is %s", e.Type().Nullable())
		}
		call.Filter = arg(e)
	}
	if err := b.orderWithin(g, x, &call, arg); err != nil {
		return nil, err
	}
	var ok bool
	if call.Type, ok = call.Func.ResultType(in); !ok || onlyBoolean[name] && in.Kind != row.Boolean {
		e := b.fail(errs.SQLTypeMismatch, x.Pos, "%s does not take %s", name, in.Nullable())
		if call.Func == operator.ListAgg {
			return nil, e.WithHint("CAST(.. AS STRING)")
		}
		return nil, e
	}
	for i, c := range g.calls {
		if c.Equal(call) {
			return &expr.Column{Index: callColumn + i, T: call.Type}, nil
		}
	}
	g.calls = append(g.calls, call)
	return &expr.Column{Index: callColumn + len(g.calls) - 1, T: call.Type}, nil
}
