package pgwire

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/sql/parser"
	"github.com/weirstream/weir/sql/plan"
)

// prepared is a statement that was understood.
type prepared struct {
	text    string
	tag     string   // of the answer; "": SELECT and the number of rows
	columns []column // nil: it gives no rows
	oids    []uint32 // of its parameters, as the client knows them
	types   []row.Type
	ends    bool // it ends a block that has failed
	// One of these: a query; a statement that writes; rows that the session itself knows; a change of the session.
	query  parser.Query
	change parser.Statement
	copies *copying
	rows   func(x *session) *row.Batch
	act    func(x *session) error

	locks   bool                                        // of a query: the transaction depends on what it reads
	commits bool                                        // it ends a transaction well, if it can
	planned *changed                                    // of change, as it was planned when it was understood
	do      func(ctx context.Context, x *session) error // like act, of what takes time
}

// types0 are the types of the columns.
func (p *prepared) types0() []row.Type {
	var out []row.Type
	for _, c := range p.columns {
		out = append(out, c.typ)
	}
	return out
}

// served is a plan with what its sources are.
type served struct {
	*plan.Served
	relations map[string]relation
}

// relation is a view, or a table of the system catalog.
type relation struct {
	view   View
	system func(x *session) *row.Batch
	twice  []string // pipelines that have a view of the name
}

// prepare understands a statement.
func (x *session) prepare(text string, oids []uint32) (*prepared, error) {
	w := words(text, 3)
	if len(w) == 0 {
		return nil, fail("42601", "syntax error: a statement begins with a word")
	}
	switch w[0] {
	case "SELECT", "WITH", "VALUES", "TABLE":
		return x.prepareQuery(text, oids)
	case "INSERT":
		if x.definesInsert(text) {
			return x.prepareDefinition(text, w)
		}
		return x.prepareChange(text, oids)
	case "UPDATE", "DELETE", "TRUNCATE":
		return x.prepareChange(text, oids)
	case "COPY":
		return x.prepareCopy(text)
	case "MERGE":
		return nil, errs.New(errs.NotBuiltYet, "MERGE is not built yet").WithHint("INSERT .. ON CONFLICT (key) DO UPDATE SET column = excluded.column")
	case "CREATE", "DROP":
		if x.server.opts.Change != nil {
			return x.prepareDefinition(text, w)
		}
	}
	switch w[0] {
	case "CREATE", "ALTER", "DROP", "EXECUTE", "SUBSCRIBE":
		return nil, errs.New(errs.NotBuiltYet, "%s is not built yet here", w[0]).WithHint("write a file and start it: weir run FILE.sql")
	}
	p, err := x.utility(text, w)
	if p != nil {
		p.text = text
	}
	return p, err
}

func (x *session) prepareQuery(text string, oids []uint32) (*prepared, error) {
	if p, err := x.catalogQuery(text); p != nil || err != nil {
		return p, err
	}
	plain, locks := cutLocking(text)
	q, err := parser.ParseQuery("", plain)
	if err != nil {
		return nil, err
	}
	if p := x.sessionQuery(text, q); p != nil {
		return p, nil
	}
	p := &prepared{text: text, query: q, locks: locks}
	var params []plan.Param
	for _, oid := range oids {
		t, ok := rowType(oid)
		if !ok {
			return nil, fail("0A000", "parameters of type %d are not taken", oid)
		}
		params = append(params, plan.Param{Type: t})
	}
	s, err := x.plan(p, params)
	if err != nil {
		return nil, err
	}
	p.columns, p.types = columnsOf(s.Columns), s.Params
	p.tellParameters(oids)
	return p, nil
}

// tellParameters sets the types of the parameters as the client is told them: where it has said one, its own.
func (p *prepared) tellParameters(oids []uint32) {
	for i, t := range p.types {
		oid := typeOf(t).oid
		if i < len(oids) && oids[i] != 0 && oids[i] != oidUnknown {
			oid = oids[i]
		}
		p.oids = append(p.oids, oid)
	}
}

// plan plans a query over what can be read now.
func (x *session) plan(p *prepared, params []plan.Param) (*served, error) {
	s := &served{relations: map[string]relation{}}
	list := x.relations(s)
	for _, t := range systemTables() {
		if _, ok := s.relations[t.name]; !ok {
			s.relations[t.name] = relation{system: t.rows}
			list = append(list, plan.Relation{Name: t.name, Schema: t.schema})
		}
	}
	var err error
	if s.Served, err = plan.Serve(p.text, p.query, x.environment(), list, params); err != nil {
		return nil, x.explain(err)
	}
	if err := s.onePipeline(""); err != nil {
		return nil, err
	}
	if p.locks {
		for i := range s.Sources {
			for _, t := range s.Sources[i].Tables {
				if r, ok := s.relations[t.Name]; ok && !r.view.Table {
					return nil, errs.New(errs.SQLUpdates, "%s is a view: FOR UPDATE cannot be used with it", t.Name).WithHint("it can be used with the tables that the view follows from")
				}
			}
		}
	}
	return s, nil
}

// explain says what can be read instead of a name that is not known.
func (x *session) explain(err error) error {
	e, ok := errs.As(err)
	if !ok || e.Code != errs.SQLUnknownName || !strings.HasPrefix(e.Message, "there is no table or view") || strings.HasPrefix(e.Hint, "did you mean") {
		return err
	}
	var names []string
	for _, v := range x.server.opts.Views() {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return e.WithHint("there are no views yet: CREATE MATERIALIZED VIEW in a file that weir run runs makes one; tables of connectors are read through views")
	case len(names) > 20:
		names = append(names[:20], "..")
	}
	return e.WithHint("views can be read: %s", strings.Join(names, ", "))
}

// parameter is the value that a client gives for a parameter.
func (x *session) parameter(p *prepared, i int, b []byte, format int16) (out plan.Param, err error) {
	t := p.types[i]
	if b == nil {
		return plan.Param{Type: t, Value: expr.NullOf(t)}, nil
	}
	v := &row.Vector{}
	ok := false
	if t.Kind == row.Decimal {
		t.Kind = row.Numeric // until it is known how many digits there are
		defer func(declared row.Type) {
			if err == nil && out.Value != nil {
				out.Type = declared
				out.Value = exact(out.Value)
			}
		}(p.types[i])
	}
	if format == 1 {
		ok = parseBinary(v, t, p.oids[i], b, x.zone)
	} else {
		ok = parseText(v, t, b, x.zone)
	}
	if !ok {
		what := fmt.Sprintf("%q", b)
		if format == 1 {
			what = fmt.Sprintf("%x (binary)", b)
		}
		return plan.Param{}, fail("22P02", "invalid input for parameter $%d of type %s: %s", i+1, typeName(p.oids[i], -1), what)
	}
	v.Seal(1)
	return plan.Param{Type: t, Value: expr.NewConst(t, v)}, nil
}

// exact is a number as a decimal of as many digits as it has, if a decimal takes them.
func exact(k *expr.Const) *expr.Const {
	text := k.Vec.Bytes(0)
	digits := 0
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c != '-' && c != '.':
			return k // NaN and the like
		}
	}
	scale := 0
	if at := bytes.IndexByte(text, '.'); at >= 0 {
		scale = len(text) - at - 1
	}
	t := row.Type{Kind: row.Decimal, Precision: max(digits, 1), Scale: scale}
	v := &row.Vector{}
	if digits > 38 || row.ParseText(v, t, text, time.UTC) != nil {
		return k
	}
	v.Seal(1)
	return expr.NewConst(t, v)
}

// batchOf makes a batch of values: nil, string, int64, int or bool by the column's type.
func batchOf(types []row.Type, rows [][]any) *row.Batch {
	b := row.NewBuilder(types)
	b.Reset()
	for _, r := range rows {
		for c, v := range r {
			switch v := v.(type) {
			case nil:
				b.Cols[c].AppendNull(types[c].Layout())
			case string:
				b.Cols[c].AppendString(v)
			case int:
				b.Cols[c].Int64 = append(b.Cols[c].Int64, int64(v))
			case int64:
				b.Cols[c].Int64 = append(b.Cols[c].Int64, v)
			case uint32:
				b.Cols[c].Int64 = append(b.Cols[c].Int64, int64(v))
			case bool:
				n := int64(0)
				if v {
					n = 1
				}
				b.Cols[c].Int64 = append(b.Cols[c].Int64, n)
			}
		}
		b.EndRow(1)
	}
	return b.Seal()
}

func textColumn(name string) column { return columnsOf(row.Schema{{Name: name, Type: text()}})[0] }

func text() row.Type { return row.Type{Kind: row.String} }

// sessionQuery answers a SELECT of what only the session knows, without FROM; nil if it is another query.
func (x *session) sessionQuery(source string, q parser.Query) *prepared {
	s, ok := q.(*parser.Select)
	if !ok || len(s.From) > 0 || s.Where != nil || s.Distinct || s.GroupBy != nil {
		return nil
	}
	p := &prepared{text: source}
	var values []func(x *session) any
	own := false
	for _, item := range s.Items {
		name, args, named := "", []parser.Expr(nil), false
		switch e := item.X.(type) {
		case *parser.Call:
			name, args, named = strings.ToLower(e.Name.Last().Text), e.Args, true
		case *parser.ColumnRef:
			name, named = strings.ToLower(e.Name.Last().Text), true
		case *parser.StringLit:
			values = append(values, func(*session) any { return e.Value })
			p.columns = append(p.columns, textColumn("?column?"))
			continue
		}
		f, t := sessionFunction(name, args)
		if !named || f == nil {
			return nil
		}
		own = true
		if item.Alias.Text != "" {
			name = item.Alias.Text
		}
		values = append(values, f)
		p.columns = append(p.columns, columnsOf(row.Schema{{Name: name, Type: t}})[0])
	}
	if !own {
		return nil
	}
	p.rows = func(x *session) *row.Batch {
		var r []any
		for _, f := range values {
			r = append(r, f(x))
		}
		return batchOf(p.types0(), [][]any{r})
	}
	return p
}

// database and schema are where all views are.
const (
	database = "weir"
	schema   = "public"
)

// sessionFunction is one of Postgres's functions about the session.
func sessionFunction(name string, args []parser.Expr) (func(x *session) any, row.Type) {
	constant := func(v any) func(*session) any { return func(*session) any { return v } }
	setting := ""
	if len(args) > 0 {
		lit, ok := args[0].(*parser.StringLit)
		if !ok {
			return nil, row.Type{}
		}
		setting = strings.ToLower(lit.Value)
	}
	switch name {
	case "version":
		return func(x *session) any {
			return "PostgreSQL " + compatible + " (weir " + x.server.opts.Version + ")"
		}, text()
	case "current_schema":
		return constant(schema), text()
	case "current_database", "current_catalog":
		return constant(database), text()
	case "current_user", "session_user", "user", "current_role":
		return func(x *session) any { return x.settings["session_authorization"] }, text()
	case "pg_backend_pid":
		return func(x *session) any { return x.id }, row.Type{Kind: row.Int}
	case "pg_is_in_recovery":
		return constant(false), row.Type{Kind: row.Boolean}
	case "pg_client_encoding":
		return constant("UTF8"), text()
	case "current_setting":
		if len(args) == 0 {
			return nil, row.Type{}
		}
		return func(x *session) any {
			if v, ok := x.settings[setting]; ok {
				return v
			}
			return nil
		}, text()
	}
	return nil, row.Type{}
}
