package query

import (
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/table"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/sql/plan"
)

// tables makes the source of a program's internal tables.
func (x Env) tables(s plan.Source) keyed.Source {
	var defs []table.Def
	var types [][]row.Type
	for i := range s.Tables {
		t := &s.Tables[i]
		defs = append(defs, table.Def{Name: t.Name, Schema: t.Schema, Key: t.Key})
		types = append(types, t.Types())
	}
	return keyed.Source{Name: s.Name, Source: table.New(x.Env, defs, table.Options{OnCommit: x.OnCommit}), Tables: types}
}

// sequencer is that of a pipeline's internal tables, nil if it has none.
func sequencer(sources []keyed.Source) *table.Sequencer {
	for _, s := range sources {
		if t, ok := s.Source.(*table.Sequencer); ok {
			return t
		}
	}
	return nil
}
