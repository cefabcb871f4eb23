package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// maxSets is how many sets a GROUP BY may come to: each is an aggregate of its own.
const maxSets = 128

// groupItem is the sets of keys that an item of GROUP BY stands for. bind makes an expression a key and gives its number.
func (b *binder) groupItem(item *parser.GroupItem, bind func(parser.Expr) (int, error)) ([][]int, error) {
	if item.Kind == parser.GroupSet {
		set := []int{}
		for _, x := range item.Exprs {
			k, err := bind(x)
			if err != nil {
				return nil, err
			}
			set = append(set, k)
		}
		return [][]int{set}, nil
	}
	var parts [][]int
	for i := range item.Items {
		sets, err := b.groupItem(&item.Items[i], bind)
		if err != nil {
			return nil, err
		}
		parts = append(parts, sets...)
	}
	n := len(parts)
	var sets [][]int
	switch item.Kind {
	case parser.GroupRollup:
		for i := n; i >= 0; i-- {
			sets = append(sets, slices.Concat(parts[:i]...))
		}
	case parser.GroupCube:
		if n > 7 {
			return nil, b.tooManySets(item.Pos)
		}
		for mask := 1<<n - 1; mask >= 0; mask-- {
			set := []int{}
			for i, p := range parts {
				if mask&(1<<(n-1-i)) != 0 {
					set = append(set, p...)
				}
			}
			sets = append(sets, set)
		}
	default:
		sets = parts
	}
	return sets, nil
}

func (b *binder) tooManySets(at parser.Pos) error {
	return b.fail(errs.SQLGrouping, at, "GROUP BY comes to more than %d grouping sets", maxSets).WithHint("CUBE of n items is 2^n sets")
}

// addSets makes the sets of GROUP BY those of what came before together with each of an item's.
func (b *binder) addSets(g *grouping, sets [][]int, at parser.Pos) error {
	if g.sets == nil {
		g.sets = [][]int{{}}
	}
	if len(g.sets)*len(sets) > maxSets {
		return b.tooManySets(at)
	}
	var all [][]int
	for _, x := range g.sets {
		for _, y := range sets {
			set := slices.Concat(x, y)
			slices.Sort(set)
			all = append(all, slices.Compact(set))
		}
	}
	g.sets = all
	return nil
}

// keyType is the type of a key among the groups: NULL where a set leaves it out.
func (g *grouping) keyType(k int) row.Type {
	t := g.keys[k].Type()
	for _, s := range g.sets {
		t.NotNull = t.NotNull && slices.Contains(s, k)
	}
	return t
}

// groupingCall binds GROUPING(a, b, ..): a number with a bit for each argument, the last one lowest, that is set where the
// row's set leaves that key out.
func (b *binder) groupingCall(g *grouping, x *parser.Call, name string) (expr.Expr, error) {
	if g == nil {
		return nil, b.fail(errs.SQLGrouping, x.Pos, "%s needs a GROUP BY", name)
	}
	if len(x.Args) == 0 || len(x.Args) > 62 {
		return nil, b.fail(errs.SQLTypeMismatch, x.Pos, "%s takes keys of the GROUP BY", name)
	}
	var keys []int
	for _, a := range x.Args {
		e, err := b.expr(g.before, a)
		if err != nil {
			return nil, err
		}
		k := slices.IndexFunc(g.keys, func(k expr.Expr) bool { return k.String() == e.String() })
		if k < 0 {
			return nil, b.fail(errs.SQLGrouping, a.Position(), "%s takes keys of the GROUP BY", name)
		}
		keys = append(keys, k)
	}
	i := slices.IndexFunc(g.groupings, func(k []int) bool { return slices.Equal(k, keys) })
	if i < 0 {
		i = len(g.groupings)
		g.groupings = append(g.groupings, keys)
	}
	return &expr.Column{Index: groupingColumn + i, T: groupingType}, nil
}

var groupingType = row.Type{Kind: row.BigInt, NotNull: true}

// groupSets is an aggregate for each of the sets, with NULL in the place of the keys that it leaves out, and the values of
// the GROUPING calls behind the others. The set () is one group, which is there without a row, too.
func (g *grouping) groupSets(agg *aggregate) rel {
	sets := g.sets
	if sets == nil {
		sets = [][]int{agg.group}
	}
	u := &union{}
	for _, set := range sets {
		a := &aggregate{in: agg.in, group: set, calls: agg.calls}
		for _, k := range set {
			a.schema = append(a.schema, agg.schema[k])
		}
		a.schema = append(a.schema, agg.schema[len(g.keys):]...)
		p := &project{in: a}
		add := func(e expr.Expr, name string, t row.Type) {
			p.exprs = append(p.exprs, e)
			p.schema = append(p.schema, row.Field{Name: name, Type: t})
		}
		for k := range g.keys {
			t := g.keyType(k)
			var e expr.Expr = expr.NullOf(t)
			if at := slices.Index(set, k); at >= 0 {
				e = column(a.schema, at)
			}
			add(e, agg.schema[k].Name, t)
		}
		for i := range agg.calls {
			f := a.schema[len(set)+i]
			add(column(a.schema, len(set)+i), f.Name, f.Type)
		}
		for i, keys := range g.groupings {
			bits := int64(0)
			for _, k := range keys {
				bits <<= 1
				if !slices.Contains(set, k) {
					bits |= 1
				}
			}
			add(expr.Int(groupingType, bits), "$grouping"+strconv.Itoa(i), groupingType)
		}
		u.in, u.schema = append(u.in, p), p.schema
	}
	if len(u.in) == 1 {
		return u.in[0]
	}
	return u
}

// distinctSets leaves the sets out that come again: GROUP BY DISTINCT.
func distinctSets(sets [][]int) (out [][]int) {
	for _, s := range sets {
		if !slices.ContainsFunc(out, func(o []int) bool { return slices.Equal(o, s) }) {
			out = append(out, s)
		}
	}
	return out
}

func isGrouping(c *parser.Call) bool {
	name := strings.ToUpper(c.Name.Last().Text)
	return c.Over == nil && len(c.Name) == 1 && (name == "GROUPING" || name == "GROUPING_ID")
}
