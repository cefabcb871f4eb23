package expr

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// unify casts all to their common type. A constant text takes the type of the others.
func unify(name string, args []Expr) ([]Expr, row.Type, error) {
	var ts []row.Type
	for _, a := range args {
		ts = append(ts, a.Type())
	}
	t, err := CommonType(ts...)
	if err != nil {
		t, ok := commonWithText(args)
		if !ok {
			if e, is := errs.As(err); is {
				e.WithDetail("in %s(%s)", name, joinExprs(args, ", "))
			}
			return nil, t, err
		}
		return castAll(args, t), t, nil
	}
	return castAll(args, t), t, nil
}

func castAll(args []Expr, t row.Type) []Expr {
	out := make([]Expr, len(args))
	for i, a := range args {
		out[i] = castNode(a, t, false)
	}
	return out
}

// commonWithText is the common type of those that are not text literals, if the literals can be read as it.
func commonWithText(args []Expr) (row.Type, bool) {
	t, notNull := kind(row.Null), true
	for _, a := range args {
		if _, ok := a.(*Const); ok && a.Type().Kind == row.String {
			continue
		}
		notNull = notNull && a.Type().NotNull
		var ok bool
		if t, ok = common(t, a.Type()); !ok {
			return t, false
		}
	}
	for _, a := range args {
		if a.Type().Kind == row.String && !constantText(a, t) {
			return t, false
		}
	}
	return required(t, notNull), true
}

// conditionals are the forms that compute their parts only where needed.
func conditionals() []*Function {
	return []*Function{
		{name: "AND", hidden: true, sig: "bb*", resolve: resolveLogic(false)},
		{name: "OR", hidden: true, sig: "bb*", resolve: resolveLogic(true)},
		{name: "CASE", hidden: true, resolve: resolveCase},
		{name: "IF", resolve: resolveIf},
		{name: "COALESCE", resolve: resolveCoalesce},
		{name: "IFNULL|NVL", resolve: func(f *Function, args []Expr) (Expr, error) {
			if len(args) != 2 {
				return nil, takes(f, "two values")
			}
			return resolveCoalesce(f, args)
		}},
		{name: "NULLIF", resolve: resolveNullIf},
		{name: "BETWEEN", hidden: true, resolve: resolveBetween},
		{name: "BETWEEN SYMMETRIC", hidden: true, resolve: func(f *Function, args []Expr) (Expr, error) {
			if len(args) != 3 {
				return nil, takes(f, "three values")
			}
			a, err := resolveBetween(f, args)
			if err != nil {
				return nil, err
			}
			b, err := resolveBetween(f, []Expr{args[0], args[2], args[1]})
			if err != nil {
				return nil, err
			}
			return Resolve("OR", []Expr{a, b})
		}},
		{name: "IN", hidden: true, resolve: resolveIn},
		{name: "NOT BETWEEN", hidden: true, resolve: func(f *Function, args []Expr) (Expr, error) {
			if len(args) != 3 {
				return nil, takes(f, "three values")
			}
			low, err := Resolve("<", args[:2])
			if err != nil {
				return nil, err
			}
			high, err := Resolve(">", []Expr{args[0], args[2]})
			if err != nil {
				return nil, err
			}
			return Resolve("OR", []Expr{low, high})
		}},
	}
}

func takes(f *Function, what string) error {
	return errs.New(errs.SQLTypeMismatch, "%s takes %s", f.name, what)
}

func resolveLogic(or bool) func(*Function, []Expr) (Expr, error) {
	return func(f *Function, args []Expr) (Expr, error) {
		if len(args) < 2 {
			return nil, takes(f, "two conditions")
		}
		var flat []Expr
		for _, a := range args {
			e, ok := matchArg('b', a)
			if !ok {
				return nil, f.mismatch(args)
			}
			if l, ok := e.(*Logic); ok && l.Or == or {
				flat = append(flat, l.Args...)
			} else {
				flat = append(flat, e)
			}
		}
		return &Logic{Or: or, Args: flat}, nil
	}
}

func resolveCase(f *Function, args []Expr) (Expr, error) {
	if len(args) < 2 {
		return nil, takes(f, "WHEN .. THEN ..")
	}
	if len(args)%2 == 0 {
		args = append(args[:len(args):len(args)], Null())
	}
	var values []Expr
	for i := 1; i < len(args); i += 2 {
		values = append(values, args[i])
	}
	values = append(values, args[len(args)-1])
	values, t, err := unify(f.name, values)
	if err != nil {
		return nil, err
	}
	c := &Case{Else: values[len(values)-1], T: t}
	for i := 0; i+1 < len(args); i += 2 {
		cond, ok := matchArg('b', args[i])
		if !ok {
			return nil, errs.New(errs.SQLTypeMismatch, "a condition of CASE is %s, not BOOLEAN", args[i].Type().Nullable()).WithDetail("the condition is %s", args[i])
		}
		c.Whens = append(c.Whens, When{cond, values[i/2]})
	}
	return c, nil
}

func resolveIf(f *Function, args []Expr) (Expr, error) {
	if len(args) != 3 {
		return nil, takes(f, "a condition and two values")
	}
	return resolveCase(f, args)
}

func resolveCoalesce(f *Function, args []Expr) (Expr, error) {
	if len(args) == 0 {
		return nil, takes(f, "values")
	}
	out, t, err := unify(f.name, args)
	if err != nil {
		return nil, err
	}
	t.NotNull = false
	for i, a := range out {
		if a.Type().NotNull { // nothing behind it is ever needed
			t.NotNull = true
			out = out[:i+1]
			break
		}
	}
	if len(out) == 1 {
		return out[0], nil
	}
	return &Coalesce{Args: out, T: t}, nil
}

func resolveNullIf(f *Function, args []Expr) (Expr, error) {
	if len(args) != 2 {
		return nil, takes(f, "two values")
	}
	eq, err := Resolve("=", args)
	if err != nil {
		return nil, err
	}
	t := args[0].Type().Nullable()
	return &Case{Whens: []When{{eq, NullOf(t)}}, Else: args[0], T: t}, nil
}

func resolveBetween(f *Function, args []Expr) (Expr, error) {
	if len(args) != 3 {
		return nil, takes(f, "three values")
	}
	low, err := Resolve(">=", args[:2])
	if err != nil {
		return nil, err
	}
	high, err := Resolve("<=", []Expr{args[0], args[2]})
	if err != nil {
		return nil, err
	}
	return &Logic{Args: []Expr{low, high}}, nil
}

// resolveIn makes a set of constants, or else a chain of comparisons.
func resolveIn(f *Function, args []Expr) (Expr, error) {
	if len(args) < 2 {
		return nil, takes(f, "a value and a list")
	}
	list, t, err := unify(f.name, args)
	if err != nil {
		return nil, err
	}
	if len(list) > 2 && t.Layout() != row.LayoutBytes || t.Kind == row.String {
		in := &In{Arg: list[0]}
		for _, e := range list[1:] {
			folded, err := Fold(e, Settings{})
			if err != nil {
				return nil, err
			}
			c, ok := folded.(*Const)
			if !ok || !Deterministic(e) || readsZone(e) {
				in = nil
				break
			}
			if c.IsNull() {
				in.Null = true
			} else {
				in.List = append(in.List, c)
			}
		}
		if in != nil && len(in.List) > 0 {
			return in, nil
		}
	}
	var ors []Expr
	for _, e := range list[1:] {
		eq, err := Resolve("=", []Expr{list[0], e})
		if err != nil {
			return nil, err
		}
		ors = append(ors, eq)
	}
	if len(ors) == 1 {
		return ors[0], nil
	}
	return &Logic{Or: true, Args: ors}, nil
}

// readsZone tells whether the session's time zone changes the value.
func readsZone(e Expr) bool {
	reads := false
	Walk(e, func(n Expr) bool {
		if n.Type().Kind == row.TimestampLTZ {
			reads = true
		}
		return !reads
	})
	return reads
}
