package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

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

// noTTL is the warning that state is kept longer than was asked.
func (b *binder) noTTL(what string, at parser.Pos) {
	b.warn(b.fail(errs.SQLUnbounded, at, "%s is not built yet: the state is kept for good", what).
		WithHint("the result is that of all rows; rows that are older than you need go with a condition on their time"))
}

// setTTL looks at SET 'table.exec.state.ttl'.
func (b *binder) setTTL(s *parser.Set) error {
	d, ok := duration(s.Value.Text)
	if !ok {
		return b.fail(errs.SQLConnector, s.Value.Pos, "%q is no duration", s.Value.Text).WithHint("a number and d, h, min, s or ms: '12 h'")
	}
	if d > 0 {
		b.noTTL("table.exec.state.ttl", s.Value.Pos)
	}
	return nil
}

// stateTTL warns of what is asked of STATE_TTL, which is not kept: state stays, and the result is that of all rows.
func (b *binder) stateTTL(hints []parser.Hint, sc *scope) error {
	for _, h := range hints {
		if !strings.EqualFold(h.Name.Text, "STATE_TTL") {
			continue
		}
		for _, a := range h.Args {
			if a.Value == nil {
				return b.fail(errs.SQLSyntax, a.Key.Pos, "STATE_TTL takes 'table' = 'duration'").WithHint("STATE_TTL('orders' = '1d', 'customers' = '12h')")
			}
			if _, ok := duration(a.Value.Text); !ok {
				return b.fail(errs.SQLSyntax, a.Value.Pos, "%q is no duration", a.Value.Text).WithHint("a number and d, h, min, s or ms: '12h'")
			}
			if !sc.hasTable(a.Key.Text) {
				var names []string
				for _, c := range sc.cols {
					if c.table != "" && !strings.HasPrefix(c.table, "$") && !slices.Contains(names, c.table) {
						names = append(names, c.table)
					}
				}
				e := b.fail(errs.SQLUnknownName, a.Key.Pos, "STATE_TTL names %s, which is not in FROM", a.Key.Text)
				if hint := nearest.Hint(a.Key.Text, names); hint != "" {
					return e.WithHint("%s", hint)
				}
				return e.WithHint("the tables here are %s", strings.Join(names, ", "))
			}
		}
		b.noTTL("STATE_TTL", h.Name.Pos)
	}
	return nil
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
