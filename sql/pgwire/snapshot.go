package pgwire

import (
	"context"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/worker/keyed"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/plan"
)

// pinned is an epoch of a pipeline as its internal tables see it.
type pinned struct {
	*keyed.Pin
	nodes []int // by table
}

// Read is part of table.Base.
func (p pinned) Read(ctx context.Context, number int, keys *row.Batch, f func(*row.Batch) error) error {
	return p.Pin.Read(ctx, p.nodes[number], keys, f)
}

func notRunning(v View) error {
	what := "view %s cannot be read"
	if v.Table {
		what = "table %s cannot be used"
	}
	return errs.New(errs.PipelineState, what+": pipeline %s is not running", v.Name, v.Pipeline).WithHint("weir pipelines get %s shows why", v.Pipeline)
}

func inTwo(name string, pipelines []string) error {
	return errs.New(errs.SQLUnknownName, "view %s is in more than one pipeline: %s", name, strings.Join(pipelines, ", ")).
		WithHint("give one of the views another name")
}

// environment is what statements are planned against.
func (x *session) environment() plan.Environment {
	if x.rand == nil {
		x.rand = x.server.env.Rand.Stream("pgwire")
	}
	return plan.Environment{Zone: x.zone, Now: x.server.env.Clock.Now().UnixMicro(), Rand: x.rand}
}

// relations are the views and tables that a plan may use.
func (x *session) relations(s *served) []plan.Relation {
	var list []plan.Relation
	for _, v := range x.server.opts.Views() {
		if r, ok := s.relations[v.Name]; ok {
			r.twice = append(r.twice, v.Pipeline)
			s.relations[v.Name] = r
			continue
		}
		s.relations[v.Name] = relation{view: v, twice: []string{v.Pipeline}}
		list = append(list, plan.Relation{Name: v.Name, Schema: v.Schema, Key: v.Key, Table: v.Table})
	}
	return list
}

// onePipeline refuses a plan whose views are of several pipelines. from is the one that it has to do with besides, "" if
// there is none.
func (s *served) onePipeline(from string) error {
	for i := range s.Sources {
		for _, t := range s.Sources[i].Tables {
			r, ok := s.relations[t.Name]
			switch {
			case !ok || r.system != nil:
				continue
			case len(r.twice) > 1:
				return inTwo(t.Name, r.twice)
			case from != "" && from != r.view.Pipeline:
				return errs.New(errs.NotBuiltYet, "a query over views of two pipelines, %s and %s, is not built yet", from, r.view.Pipeline).
					WithDetail("Pipelines have epochs of their own, so the views would be of two moments.").WithHint("define both views in one file")
			}
			from = r.view.Pipeline
		}
	}
	return nil
}

// reader reads a view or table as the session sees it.
func (x *session) reader(ctx context.Context, v View, keys *row.Batch, depends bool) (keyed.Rows, error) {
	if x.tx == inBlock && x.writes == nil && v.Tables != nil && v.Keyed != nil && x.pins[v.Keyed] == nil {
		// What the block may write later is compared with what it reads now.
		if err := x.begin(ctx, v, false, false); err != nil {
			return nil, err
		}
	}
	if tx := x.writes; tx != nil && tx.Sequencer() == v.Tables {
		if v.Table {
			return func(f func(*row.Batch) error) error {
				return tx.Read(ctx, v.Tables.Table(v.Name), keys, depends, f)
			}, nil
		}
		if tx.Written() {
			return nil, errs.New(errs.SQLUpdates, "view %s cannot be read behind writes of the same transaction", v.Name).
				WithDetail("A view follows from what is committed, so it would not show what the transaction has changed.").
				WithHint("read views before the first write of a transaction, or after COMMIT; tables can be read")
		}
	}
	pin, err := x.pin(ctx, v)
	if err != nil {
		return nil, err
	}
	return func(f func(*row.Batch) error) error { return pin.Read(ctx, v.Node, keys, f) }, nil
}
