package plan

import (
	"slices"
	"strconv"
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// A statement that is added to a running pipeline must not change what is there: the nodes of everything before it keep
// their IDs, and so their state. Its own nodes begin empty and are filled with what others have kept (engine/worker/keyed,
// fill.go), so each of them is either fed by a node that is new, too, or by one whose rows are kept:
//
//   - A materialized view is read as the rows that it keeps, and not computed once more.
//   - A table is read at the node where it enters, whose columns stay those that it has; behind it is the index by its
//     primary key, if it has one.
//   - All other nodes are the statement's own, even if another computes the same: nobody has kept what that one has
//     emitted so far. The left index of an inner join may be shared: see lowerJoin.

// Elsewhere is the place of sources and sinks that do not stand in the file; its offset is below 0.
func Elsewhere() parser.Pos { return parser.Pos{Offset: -1} }

// added binds the n-th of the added statements and makes its nodes.
func (p *physical) added(n int, text string) error {
	b := p.b
	b.added, b.file, b.text = n, "added statement "+strconv.Itoa(n), text
	script, err := parser.Parse(b.file, text)
	if err != nil {
		return err
	}
	if len(script.Statements) != 1 {
		return b.fail(errs.SQLSyntax, parser.Pos{}, "%d statements where one is added", len(script.Statements))
	}
	s := script.Statements[0]
	switch s.(type) {
	case *parser.CreateTable, *parser.CreateView, *parser.CreateMaterializedView, *parser.Insert:
	default:
		return b.fail(errs.SQLNotBuilt, s.Position(), "%s cannot be added to a running pipeline", parser.Keywords(s))
	}
	var inserts []insert
	var views []*view
	if err := b.statement(p.program, s, &inserts, &views); err != nil {
		return err
	}
	p.salt = parser.PrintNode(s)
	if len(views) > 0 {
		p.salt = "view " + views[0].name
	}
	defer func() { p.salt = "" }()
	sources, sinks := len(p.program.Sources), len(p.program.Sinks)
	defer func() {
		// Their places are not in the file.
		for i := range p.program.Sources[sources:] {
			p.program.Sources[sources+i].Pos = Elsewhere()
		}
		for i := range p.program.Sinks[sinks:] {
			p.program.Sinks[sinks+i].Pos = Elsewhere()
		}
	}()
	before := p.used
	p.used = map[*table]map[int]bool{}
	rels := p.collectAll(inserts, views)
	asked := p.used
	p.used = before
	for t, columns := range asked {
		if t.kept != nil {
			continue
		}
		if _, there := p.scans[t]; !there {
			// Later statements will find every column.
			p.used[t] = map[int]bool{}
			for c := range t.schema {
				p.used[t][c] = true
			}
			continue
		}
		var missing []string
		for c := range t.schema {
			if columns[c] && !p.used[t][c] && !(t.kind.Upsert && slices.Contains(t.key, c)) {
				missing = append(missing, t.schema[c].Name)
			}
		}
		if len(missing) > 0 {
			return b.fail(errs.SQLConnector, s.Position(), "the pipeline does not keep column %s of table %s, and cannot begin to while it runs", strings.Join(missing, ", "), t.name).
				WithHint("put the view into the file, and run it under another --name")
		}
	}
	for i := range views {
		if err := p.view(views[i], rels[i], everything(rels[i])); err != nil {
			return err
		}
	}
	for _, x := range inserts {
		if err := p.sink(x, everything(x.rel)); err != nil {
			return err
		}
	}
	return nil
}

// share says whether the nodes that follow may be those of other statements; what it returns takes that back.
func (p *physical) share(yes bool) func() {
	before := p.shared
	p.shared = before || yes
	return func() { p.shared = before }
}

// readKept is a view as an added statement reads it.
func (b *binder) readKept(v *view) (rel, error) {
	if !v.materialized {
		return v.again()
	}
	if v.kept == nil {
		s := v.rel.columns()
		t := &table{name: v.name, kind: Kind{Source: true, Changelog: true}, options: map[string]string{}, schema: s, all: s, kept: v}
		t.scan = &scan{table: t}
		t.read = t.scan
		v.kept = t
	}
	return v.kept.read, nil
}

// Follows checks that p can go on with the state of was: p is was with statements added, or without some that were.
func (p *Program) Follows(was *Program) error {
	for _, s := range was.Sources {
		i := slices.IndexFunc(p.Sources, func(x Source) bool { return x.Name == s.Name && x.Connector == s.Connector })
		if i < 0 || s.Connector == "values" {
			continue
		}
		for _, t := range p.Sources[i].Tables {
			k := slices.IndexFunc(s.Tables, func(x SourceTable) bool { return x.Name == t.Name })
			if k < 0 {
				return errs.New(errs.SQLConnector, "table %s comes from %s, which the pipeline has begun to read without it", t.Name, s.Name).
					WithHint("read it in a pipeline of its own: put it into a file, and run that under another name")
			}
			if !slices.Equal(s.Tables[k].Columns, t.Columns) {
				return errs.New(errs.SQLConnector, "the pipeline reads other columns of table %s now, and cannot change that while it runs", t.Name)
			}
		}
		if len(p.Sources[i].Tables) != len(s.Tables) {
			return errs.New(errs.SQLConnector, "of the tables that the pipeline reads from %s, some would not be read any more", s.Name).
				WithHint("keep a view that reads them, or delete the pipeline")
		}
	}
	sinks := was.sinkNodes()
	for name, ids := range p.sinkNodes() {
		news := slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(sinks[name], id) })
		gone := slices.ContainsFunc(sinks[name], func(id string) bool { return !slices.Contains(ids, id) })
		if news && gone {
			return errs.New(errs.SQLConnector, "table %s is written by a query that would be computed anew, and would get rows that it has already", name).
				WithHint("write to another table")
		}
	}
	return nil
}

// sinkNodes are the IDs of the nodes that write tables, by table.
func (p *Program) sinkNodes() map[string][]string {
	out := map[string][]string{}
	for _, n := range p.Graph.Nodes {
		if n.Sink != nil {
			name := p.Sinks[n.Sink.Sink].Tables[n.Sink.Table].Name
			out[name] = append(out[name], n.ID)
		}
	}
	return out
}

// Lacks is the first node of was that p does not have, nil if it has all.
func (p *Program) Lacks(was *Program) *dataflow.Node {
	has := map[string]bool{}
	for _, n := range p.Graph.Nodes {
		has[n.ID] = true
	}
	for i := range was.Graph.Nodes {
		if !has[was.Graph.Nodes[i].ID] {
			return &was.Graph.Nodes[i]
		}
	}
	return nil
}
