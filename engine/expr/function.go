package expr

import (
	"sort"
	"strings"
	"sync"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
)

// volatility tells what a function depends on besides its arguments.
type volatility uint8

const (
	pureFunction   volatility = iota
	clockFunction             // reads the clock: the same for all rows of a run
	randomFunction            // another value for each call
)

// Function is a function or operator that Resolve finds. It is a definition: how it is computed is settled by Compile.
type Function struct {
	name string
	// sig says what is taken, see signature; forms are tried in order.
	sig string
	// result is the type for the arguments, which sig has accepted and cast. NOT NULL is seen to by the caller.
	result func(args []Expr) row.Type
	// resolve replaces sig and result for what has rules of its own.
	resolve func(fn *Function, args []Expr) (Expr, error)
	// bind makes the loop for a call.
	bind func(c *Call, s *Settings) (kernel, error)
	// print is how the call is written; nil is name(args).
	print    func(c *Call) string
	volatile volatility
	// faults: there are rows for which it cannot be computed.
	faults bool
	// nulls: NULLs among the arguments are the kernel's business; otherwise they make the result NULL.
	nulls bool
	// nullable: the result may be NULL though no argument is.
	nullable bool
	// notNull: the result is never NULL.
	notNull bool
	// cost is how much slower than an addition it is, to order conditions.
	cost int
	// hidden: it is an operator, SHOW FUNCTIONS leaves it out.
	hidden bool
}

// Name of the function as SQL writes it.
func (f *Function) Name() string { return f.name }

func (f *Function) format(c *Call) string {
	if f.print != nil {
		return f.print(c)
	}
	return f.name + "(" + joinExprs(c.Args, ", ") + ")"
}

func printInfix(c *Call) string {
	if len(c.Args) == 1 {
		return "(" + c.Fn.name + c.Args[0].String() + ")"
	}
	return "(" + joinExprs(c.Args, " "+c.Fn.name+" ") + ")"
}

func printPostfix(c *Call) string { return "(" + c.Args[0].String() + " " + c.Fn.name + ")" }

// table is made by the first look-up and only read from then on.
var table struct {
	once sync.Once
	all  map[string]*Function
}

func builtins() map[string]*Function {
	table.once.Do(func() { table.all = makeBuiltins() })
	return table.all
}

func makeBuiltins() map[string]*Function {
	all := map[string]*Function{}
	for _, list := range [][]*Function{
		operators(), comparisons(), conditionals(), mathFunctions(), stringFunctions(), patternFunctions(), timeFunctions(), codingFunctions(),
		jsonFunctions(), collectionFunctions(), moreCollections(), randomFunctions(),
	} {
		for _, f := range list {
			if f.cost == 0 {
				f.cost = 10
			}
			names := []string{f.name}
			if f.name != "||" {
				names = strings.Split(f.name, "|")
			}
			f.name = names[0]
			for _, n := range names {
				all[n] = f
			}
		}
	}
	return all
}

// Functions are the names that SHOW FUNCTIONS lists.
func Functions() []string {
	var names []string
	for n, f := range builtins() {
		if !f.hidden {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

// IsFunction tells whether Resolve knows the name.
func IsFunction(name string) bool { return builtins()[strings.ToUpper(name)] != nil }

// Resolve finds the function or operator of the name, in any case, checks the arguments, inserts the implicit casts and
// gives the call its type. What SQL writes with words of its own is called so:
//
//	a + b, a || b, NOT a, a AND b    "+", "||", "NOT", "AND"; -a is "-" with one argument
//	a IS [NOT] NULL|TRUE|FALSE|UNKNOWN    "IS NULL", "IS NOT TRUE", ...; "IS DISTINCT FROM", "IS NOT DISTINCT FROM"
//	a [NOT] BETWEEN b AND c    "BETWEEN", "NOT BETWEEN" (a, b, c)
//	a [NOT] IN (b, c)    "IN", "NOT IN" (a, b, c)
//	a [NOT] LIKE b ESCAPE c    "LIKE", "NOT LIKE" (a, b[, c]); so "SIMILAR TO", "NOT SIMILAR TO", "ILIKE"
//	CASE WHEN a THEN b .. ELSE c END    "CASE" (a, b, .., c); without ELSE an even number of arguments
//	EXTRACT(u FROM a), FLOOR(a TO u), CEIL(a TO u)    "EXTRACT" (u, a), "FLOOR" (a, u); u is a Str constant, also in TIMESTAMPADD and TIMESTAMPDIFF
//	TRIM(BOTH a FROM b)    "TRIM" (Str BOTH|LEADING|TRAILING, a, b)
//	SUBSTRING(a FROM b FOR c), POSITION(a IN b), OVERLAY(a PLACING b FROM c FOR d)    arguments in that order
//	a AT TIME ZONE 'z'    "AT TIME ZONE" (a, z)
//	a[i]    "[]" (a, i)
//	r.f    "." (r, Str f)
//	ARRAY[..], MAP[k, v, ..], ROW(..)    "ARRAY", "MAP", "ROW"
//	a IS [NOT] JSON [VALUE|SCALAR|ARRAY|OBJECT]    "IS JSON", "IS NOT JSON" (a[, Str])
//	JSON_VALUE(a, p RETURNING t NULL|ERROR|DEFAULT d ON EMPTY .. ON ERROR)    "JSON_VALUE" (a, p[, NullOf(t)[, Str NULL|ERROR|DEFAULT, d or NULL, the same for ON ERROR]])
//	JSON_QUERY(a, p .. WRAPPER, .. ON EMPTY, .. ON ERROR)    "JSON_QUERY" (a, p[, Str WITHOUT|CONDITIONAL|UNCONDITIONAL[, Str NULL|EMPTY ARRAY|EMPTY OBJECT|ERROR, the same for ON ERROR]])
//	JSON_EXISTS(a, p TRUE|FALSE|UNKNOWN|ERROR ON ERROR)    "JSON_EXISTS" (a, p[, Str])
//	JSON_OBJECT(k VALUE v, .. NULL|ABSENT ON NULL), JSON_ARRAY    "JSON_OBJECT" (Str NULL|ABSENT, k, v, ..), "JSON_ARRAY" (Str NULL|ABSENT, v, ..)
//	CURRENT_TIMESTAMP and the like    no arguments
func Resolve(name string, args []Expr) (Expr, error) {
	upper := strings.ToUpper(name)
	if inner, ok := strings.CutPrefix(upper, "NOT "); ok && builtins()[upper] == nil {
		e, err := Resolve(inner, args)
		if err != nil {
			return nil, err
		}
		if in, ok := e.(*In); ok {
			return &In{in.Arg, in.List, in.Null, true}, nil
		}
		return Resolve("NOT", []Expr{e})
	}
	if what, ok := strings.CutPrefix(upper, "IS NOT "); ok && builtins()[upper] == nil && builtins()["IS "+what] != nil {
		e, err := Resolve("IS "+what, args)
		if err != nil {
			return nil, err
		}
		return Resolve("NOT", []Expr{e})
	}
	fn := builtins()[upper]
	if fn == nil {
		err := errs.New(errs.SQLUnknownFunction, "there is no function %s", name)
		if h := nearest.Hint(upper, Functions()); h != "" {
			return nil, err.WithHint("%s", h)
		}
		return nil, err.WithHint("SHOW FUNCTIONS lists what there is")
	}
	if fn.resolve != nil {
		return fn.resolve(fn, args)
	}
	return fn.call(args)
}

// call checks args by the signature.
func (f *Function) call(args []Expr) (Expr, error) {
	cast, ok := f.match(args)
	if !ok {
		return nil, f.mismatch(args)
	}
	return f.typed(cast, f.result(cast)), nil
}

// typed is the call with the right NOT NULL.
func (f *Function) typed(args []Expr, t row.Type) *Call {
	t.NotNull = f.notNull || !f.nullable && !f.nulls && allNotNull(args)
	return &Call{Fn: f, Args: args, T: t}
}

// mismatch says what was given and what is taken.
func (f *Function) mismatch(args []Expr) error {
	given := make([]string, len(args))
	for i, a := range args {
		given[i] = a.Type().Nullable().String()
	}
	if f.hidden {
		return errs.New(errs.SQLTypeMismatch, "%s does not take (%s)", f.name, strings.Join(given, ", "))
	}
	return errs.New(errs.SQLTypeMismatch, "%s does not take (%s)", f.name, strings.Join(given, ", ")).WithHint("it takes %s", f.takes())
}

// A signature is a letter for each argument: b BOOLEAN, s text, y BYTES, i integer, n any number, d
// number cast to DOUBLE, D DATE, T DATE or timestamp, t TIME or T, a ARRAY, m MAP, c comparable with the others, x
// anything, k a constant word. ? makes the arguments from there on optional, * repeats the last one. | parts forms.
func (f *Function) match(args []Expr) ([]Expr, bool) {
	for form := range strings.SplitSeq(f.sig, "|") {
		if cast, ok := matchForm(form, args); ok {
			return cast, true
		}
	}
	return nil, false
}

func matchForm(form string, args []Expr) ([]Expr, bool) {
	var out []Expr
	required, last := 0, byte(0)
	optional := false
	for i := range len(form) {
		switch c := form[i]; c {
		case '?':
			optional = true
		case '*':
			for len(out) < len(args) {
				e, ok := matchArg(last, args[len(out)])
				if !ok {
					return nil, false
				}
				out = append(out, e)
			}
		default:
			last = c
			if !optional {
				required++
			}
			if len(out) < len(args) {
				e, ok := matchArg(c, args[len(out)])
				if !ok {
					return nil, false
				}
				out = append(out, e)
			}
		}
	}
	return out, len(out) == len(args) && len(args) >= required
}

func matchArg(c byte, e Expr) (Expr, bool) {
	t := e.Type()
	null := t.Kind == row.Null
	as := func(to row.Type, ok bool) (Expr, bool) {
		if !ok && !null && !(constantText(e, to) && to.Kind != row.JSON) {
			return nil, false
		}
		return castNode(e, to, false), true
	}
	switch c {
	case 'b':
		return as(kind(row.Boolean), t.Kind == row.Boolean)
	case 's':
		if t.Kind == row.String {
			return e, true
		}
		return as(kind(row.String), t.Kind == row.JSON || t.Kind == row.Foreign)
	case 'y':
		if t.Kind == row.Bytes {
			return e, true
		}
		return as(kind(row.Bytes), false)
	case 'i':
		if t.Kind.Integer() {
			return e, true
		}
		return as(kind(row.BigInt), false)
	case 'd':
		return as(kind(row.Double), t.Kind.Number())
	case 'n':
		if null {
			return castNode(e, kind(row.Int), false), true
		}
		return e, t.Kind.Number()
	case 'D':
		return as(kind(row.Date), t.Kind == row.Date)
	case 'T', 't':
		if t.Kind == row.Date || t.Kind == row.Timestamp || t.Kind == row.TimestampLTZ || c == 't' && t.Kind == row.Time {
			return e, true
		}
		return as(timestampType(6), false)
	case 'a':
		return e, t.Kind == row.Array
	case 'm':
		return e, t.Kind == row.Map
	case 'k':
		k, ok := e.(*Const)
		return e, ok && t.Kind == row.String && !k.IsNull()
	}
	return e, true
}

// takes is the signature for people.
func (f *Function) takes() string {
	words := map[byte]string{'b': "BOOLEAN", 's': "STRING", 'y': "BYTES", 'i': "INTEGER", 'n': "NUMBER", 'd': "NUMBER", 'D': "DATE", 'T': "TIMESTAMP",
		't': "TIMESTAMP or TIME", 'a': "ARRAY", 'm': "MAP", 'c': "VALUE", 'x': "VALUE", 'k': "WORD"}
	var forms []string
	for form := range strings.SplitSeq(f.sig, "|") {
		var b strings.Builder
		open, first := 0, true
		for i := range len(form) {
			switch c := form[i]; c {
			case '?':
				open++
			case '*':
				b.WriteString(", ...")
			default:
				if open > 0 {
					b.WriteString(" [")
				}
				if !first {
					b.WriteString(", ")
				}
				first = false
				b.WriteString(words[c])
				if open > 0 {
					open++
				}
			}
		}
		if open > 1 {
			b.WriteString(strings.Repeat("]", open-1))
		}
		forms = append(forms, f.name+"("+b.String()+")")
	}
	return strings.Join(forms, " or ")
}

func returns(t row.Type) func([]Expr) row.Type { return func([]Expr) row.Type { return t } }

// returnsArg is the type of an argument.
func returnsArg(i int) func([]Expr) row.Type {
	return func(args []Expr) row.Type { return args[i].Type() }
}

func text([]Expr) row.Type    { return kind(row.String) }
func boolean([]Expr) row.Type { return kind(row.Boolean) }
func bigint([]Expr) row.Type  { return kind(row.BigInt) }
func integer([]Expr) row.Type { return kind(row.Int) }
func double([]Expr) row.Type  { return kind(row.Double) }
