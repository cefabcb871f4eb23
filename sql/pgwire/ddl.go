package pgwire

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
)

// definesInsert tells whether an INSERT is one for as long as the pipeline runs: into a table of a connector. Into an
// internal table it is done once, and so is whatever cannot be understood.
func (x *session) definesInsert(text string) bool {
	if x.server.opts.Change == nil {
		return false
	}
	st, err := parser.ParseStatement("", text)
	if err != nil {
		return false
	}
	i, ok := st.(*parser.Insert)
	if !ok || hasParams(i) { // what runs for as long as the pipeline does takes no parameters
		return false
	}
	for _, v := range x.server.opts.Views() {
		if v.Name == i.Table.Last().Text {
			return false
		}
	}
	return true
}

func hasParams(n parser.Node) bool {
	found := false
	parser.Walk(n, func(n parser.Node) bool {
		_, is := n.(*parser.Param)
		found = found || is
		return !found
	})
	return found
}

// prepareDefinition understands a statement that changes a pipeline.
func (x *session) prepareDefinition(text string, w []string) (*prepared, error) {
	script, err := parser.Parse("", text)
	if err != nil {
		return nil, err
	}
	if len(script.Statements) != 1 {
		return nil, fail("42601", "one statement is taken at a time")
	}
	tag := w[0]
	switch s := script.Statements[0].(type) {
	case *parser.Insert:
		tag = "INSERT 0 0" // the rows follow for as long as the pipeline runs
	case *parser.Drop:
		tag += " " + string(s.Object)
	case *parser.CreateTable:
		tag += " TABLE"
	case *parser.CreateView:
		tag += " VIEW"
	case *parser.CreateMaterializedView:
		tag += " MATERIALIZED VIEW"
	}
	return &prepared{text: text, tag: tag, do: func(ctx context.Context, x *session) error {
		if x.tx != idle {
			return fail("25001", "%s cannot run inside a transaction block", strings.Join(w[:min(2, len(w))], " "))
		}
		x.release()
		notices, err := x.server.opts.Change(ctx, text)
		for _, n := range notices {
			x.back.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000", Message: n})
		}
		return err
	}}, nil
}

// afterChange answers a query again that met the end of a pipeline which goes on with another program. A transaction that
// has read of it before cannot go on: the epoch that it has pinned is gone. pinned is how many pipelines it had.
func (x *session) afterChange(ctx context.Context, p *prepared, o *portal, pinned int, err error) error {
	await := x.server.opts.Await
	for range maxChanges {
		if await == nil || !errs.Is(err, errs.PipelineState) || o.total > 0 || o.kept != nil && o.sent > 0 || !await(ctx, x.reading) {
			return err
		}
		if pinned > 0 {
			return fail("40001", "pipeline %s was changed while the transaction read it", x.reading.Pipeline).withHint("run the transaction again")
		}
		x.release()
		o.described, o.kept = true, nil // the columns are on their way
		if err = x.answer(ctx, p, o); err == nil {
			return nil
		}
	}
	return err
}

// upToDate is a planned change of a table whose pipeline may have been changed since, or is being changed.
func (x *session) upToDate(ctx context.Context, c *changed, p *prepared, o *portal) (*changed, error) {
	await := x.server.opts.Await
	for range maxChanges {
		now := c.view
		now.Keyed = nil
		for _, v := range x.server.opts.Views() {
			if v.Name == c.view.Name && v.Pipeline == c.view.Pipeline {
				now = v
			}
		}
		if now.Keyed == c.view.Keyed && now.Keyed != nil || x.writes != nil {
			return c, nil
		}
		if now.Keyed == nil && (await == nil || !await(ctx, now)) {
			return c, nil
		}
		var err error
		if c, err = x.planChange(p, o.params); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// maxChanges is how many changes of its pipeline a query waits for.
const maxChanges = 100
