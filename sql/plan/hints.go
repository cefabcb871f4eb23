package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/sql/parser"
)

// Hints that say how a job is to be laid out (BROADCAST, SHUFFLE_HASH, LOOKUP and the like) mean nothing here and are
// left alone, as Flink leaves those alone that do not fit.

// withOptions is a table as /*+ OPTIONS(..) */ behind its name changes its options; o itself if nothing is there.
func (b *binder) withOptions(o *object, hints []parser.Hint) (*object, error) {
	changed := map[string]parser.HintArg{}
	for _, h := range hints {
		if !strings.EqualFold(h.Name.Text, "OPTIONS") {
			continue
		}
		for _, a := range h.Args {
			if a.Value == nil {
				return nil, b.fail(errs.SQLSyntax, a.Key.Pos, "OPTIONS takes 'option' = 'value'")
			}
			changed[a.Key.Text] = a
		}
	}
	if len(changed) == 0 {
		return o, nil
	}
	keys := slices.Sorted(maps.Keys(changed))
	at := changed[keys[0]].Key.Pos
	if o.table == nil {
		return nil, b.fail(errs.SQLConnector, at, "a view has no options")
	}
	name := o.table.name
	create := b.created[name]
	if create == nil {
		return nil, b.fail(errs.NotBuiltYet, at, "OPTIONS of a table that this file does not create is not built yet")
	}
	other := *create
	other.OrReplace, other.IfNotExists = true, false
	other.Properties = nil
	text := name
	for _, p := range create.Properties {
		if _, yes := changed[p.Key.Text]; !yes {
			other.Properties = append(other.Properties, p)
		}
	}
	for _, k := range keys {
		a := changed[k]
		other.Properties = append(other.Properties, parser.Property{Key: parser.Literal{Pos: a.Key.Pos, Text: k}, Value: parser.Literal{Pos: a.Value.Pos, Text: a.Value.Text}})
		text += " " + strconv.Quote(k) + "=" + strconv.Quote(a.Value.Text)
	}
	if with := b.hinted[text]; with != nil {
		return with, nil
	}
	// It is made like the table itself, and does not take its place.
	err := b.createTable(&other)
	made := b.catalog.objects[name]
	b.catalog.objects[name], b.created[name] = o, create
	if err != nil {
		return nil, err
	}
	made.table.name = text
	if b.hinted == nil {
		b.hinted = map[string]*object{}
	}
	b.hinted[text] = made
	return made, nil
}

// expiring is an input of a join whose rows the join may forget when nothing has touched their key for some time.
type expiring struct {
	in  rel
	ttl int64 // µs
	pos parser.Pos
	// used is set when a join keeps to it.
	used *bool
}

func (r *expiring) columns() row.Schema { return r.in.columns() }

// noTTL is the warning that state is kept longer than was asked.
func (b *binder) noTTL(what string, at parser.Pos) {
	b.warn(b.fail(errs.SQLUnbounded, at, "%s: only the sides of inner joins forget rows, other state is kept for good", what).
		WithHint("rows that are older than you need go with a condition on their time"))
}

// StateTTL is the option that says how long joins keep rows whose key nothing touches.
const StateTTL = "table.exec.state.ttl"

// setTTL takes SET 'table.exec.state.ttl', which is for every join that no hint speaks of.
func (b *binder) setTTL(s *parser.Set) error {
	d, ok := duration(s.Value.Text)
	if !ok {
		return b.fail(errs.SQLConnector, s.Value.Pos, "%q is no duration", s.Value.Text).WithHint("a number and d, h, min, s or ms: '12 h'")
	}
	b.ttl, b.ttlAt = d, s.Value.Pos
	return nil
}

// stateTTL reads the STATE_TTL of a SELECT: how long the state of each table of its FROM is kept.
func (b *binder) stateTTL(hints []parser.Hint) (map[string]*expiring, error) {
	var ttls map[string]*expiring
	for _, h := range hints {
		if !strings.EqualFold(h.Name.Text, "STATE_TTL") {
			continue
		}
		for _, a := range h.Args {
			if a.Value == nil {
				return nil, b.fail(errs.SQLSyntax, a.Key.Pos, "STATE_TTL takes 'table' = 'duration'").WithHint("STATE_TTL('orders' = '1d', 'customers' = '12h')")
			}
			d, ok := duration(a.Value.Text)
			if !ok {
				return nil, b.fail(errs.SQLSyntax, a.Value.Pos, "%q is no duration", a.Value.Text).WithHint("a number and d, h, min, s or ms: '12h'")
			}
			if ttls == nil {
				ttls = map[string]*expiring{}
			}
			ttls[a.Key.Text] = &expiring{ttl: d, pos: a.Key.Pos, used: new(bool)}
		}
	}
	return ttls, nil
}

// hintedTables refuses a STATE_TTL of a table that is not there.
func (b *binder) hintedTables(ttls map[string]*expiring, sc *scope) error {
	for _, name := range slices.Sorted(maps.Keys(ttls)) {
		if sc.hasTable(name) {
			b.ttls = append(b.ttls, ttls[name])
			continue
		}
		var names []string
		for _, c := range sc.cols {
			if c.table != "" && !strings.HasPrefix(c.table, "$") && !slices.Contains(names, c.table) {
				names = append(names, c.table)
			}
		}
		e := b.fail(errs.SQLUnknownName, ttls[name].pos, "STATE_TTL names %s, which is not in FROM", name)
		if hint := nearest.Hint(name, names); hint != "" {
			return e.WithHint("%s", hint)
		}
		return e.WithHint("the tables here are %s", strings.Join(names, ", "))
	}
	return nil
}

// ttlOf is how long a side of a join is kept in µs, 0 for good, and where that was asked for; of other joins than inner
// ones it is 0.
func (p *physical) ttlOf(r rel, inner bool) int64 {
	ttl := p.b.ttl
	if e := expiringOf(r); e != nil {
		if inner {
			*e.used = true
		}
		ttl = e.ttl
	} else if ttl > 0 && !inner {
		p.b.noTTL(StateTTL, p.b.ttlAt)
	}
	if !inner {
		return 0
	}
	return ttl
}

// expiringOf is what was asked of a side of a join. Conditions and projections may stand around it.
func expiringOf(r rel) *expiring {
	for {
		switch x := r.(type) {
		case *expiring:
			return x
		case *filter:
			r = x.in
		case *project:
			r = x.in
		default:
			return nil
		}
	}
}

// unusedTTLs warns of what was asked of STATE_TTL and is not kept.
func (b *binder) unusedTTLs() {
	for _, e := range b.ttls {
		if !*e.used && e.ttl > 0 {
			b.noTTL("STATE_TTL", e.pos)
		}
	}
}

// duration reads Flink's durations: a number, and a unit or none for milliseconds. It gives microseconds.
func duration(text string) (micros int64, ok bool) {
	text = strings.TrimSpace(text)
	i := 0
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	n, err := strconv.ParseInt(text[:i], 10, 40)
	if err != nil {
		return 0, false
	}
	unit := map[string]int64{"": 1000, "ms": 1000, "milli": 1000, "millis": 1000, "millisecond": 1000, "milliseconds": 1000, "s": 1e6, "sec": 1e6, "secs": 1e6,
		"second": 1e6, "seconds": 1e6, "m": 60e6, "min": 60e6, "minute": 60e6, "minutes": 60e6, "h": 3600e6, "hour": 3600e6, "hours": 3600e6,
		"d": 86400e6, "day": 86400e6, "days": 86400e6, "µs": 1, "micro": 1, "micros": 1, "microsecond": 1, "microseconds": 1}[strings.ToLower(strings.TrimSpace(text[i:]))]
	return n * unit, unit != 0
}
