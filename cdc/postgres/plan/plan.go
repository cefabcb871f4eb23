// Package plan turns the specification of a mirror into what has to be done: which tables, under which names, with
// which DDL before and after the copy, and what stays behind.
//
// Making a plan changes nothing on either side. Carrying it out can be interrupted anywhere and begun again: a table
// that weir makes carries a mark, written in the transaction that makes it, until everything that belongs to it is
// there; so a new plan made after a crash still knows what is owed to which table, and leaves alone what users made.
package plan

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// copyRate is the assumed speed of a copy in bytes of the source's heap per second, keys and indexes included. It is
// on the low side of what one connection to a local server does.
const copyRate = 50 << 20

// A table below both gets its primary key with the table itself. Above, building the index after the copy is several
// times faster than keeping it up row by row.
const (
	smallRows  = 20_000
	smallBytes = 8 << 20
)

// Plan is a mirror's plan. It belongs to the two servers as they were when it was made.
type Plan struct {
	API       api.Plan // what users see; Slot and Publication only if the specification names them
	Selection *selection.Selection
	Tables    []*TablePlan
	// Before makes what the copy needs, in this order; Finish runs After.
	Before []pg.Statement
	After  []pg.Statement
	// What the target's doctor is asked to look for.
	Types      []pg.TypeDef
	Extensions []pg.Extension
	// SourceIdentity is empty when the role may not read it.
	SourceIdentity pg.Identity

	pipeline string // see Request
	log      *slog.Logger

	setup  []pg.Statement // schemas, extensions, types, sequences that no table brings
	create []pg.Statement // tables
	steps  []step         // After, with the sizes
	keys   int            // of which so many, the first, are primary keys

	noSequence map[pg.TargetName]string // see pg.TargetOptions
}

// TablePlan is one table of a mirror.
type TablePlan struct {
	Source *pg.Table
	Target pg.Target
	// Exists: the target has the table. Unfinished: weir made it, and its indexes and constraints are still owed.
	Exists     bool
	Unfinished bool
	Key        []string // columns that name a row; nil: rows are found by all columns
	EstRows    int64
	EstBytes   int64

	small bool
}

type step struct {
	pg.Statement
	small bool
	table *TablePlan
}

// Request says what to plan.
type Request struct {
	Spec           api.MirrorSpec
	Source, Target *pg.Config
	// Pipeline is the pipeline's id, which tells the unfinished tables of this one from those of others.
	Pipeline string
	// Judged: the doctor is asked about the plan. What stands under a table's name and is none is left to it.
	Judged bool
}

// Make plans what a user asks for now, so that patterns which would keep nothing back are refused. It reads both
// databases and writes to none.
func Make(ctx context.Context, e *env.Env, r Request) (*Plan, error) {
	return makePlan(ctx, e, r, &maker{spec: r.Spec, asked: true, judged: r.Judged})
}

// Resume plans what is still owed to the tables that an earlier plan made. names has the copied tables by OID, each with
// the name under which the target has it, before routes: the source may have renamed it since, and another table may have
// its name.
func Resume(ctx context.Context, e *env.Env, r Request, names map[uint32]pg.TargetName) (*Plan, error) {
	return makePlan(ctx, e, r, &maker{spec: r.Spec, resume: true, only: slices.AppendSeq([]uint32{}, maps.Keys(names)), names: names})
}

// MakeAt plans for some tables of the source, nil for all, as an exported snapshot has them, so that what the copy brings
// fits into the tables that the plan makes, whatever becomes of the source's tables meanwhile. Without a snapshot they
// are taken as they are now. A pattern that matches nothing is no error: its table may have been dropped since.
func MakeAt(ctx context.Context, e *env.Env, r Request, snapshot string, tables []uint32) (*Plan, error) {
	return makePlan(ctx, e, r, &maker{spec: r.Spec, snapshot: snapshot, only: tables})
}

func makePlan(ctx context.Context, e *env.Env, r Request, m *maker) (*Plan, error) {
	sel, err := selection.New(m.spec)
	if err != nil {
		return nil, err
	}
	m.p = &Plan{Selection: sel, pipeline: r.Pipeline, log: e.Log, API: api.Plan{
		Pipeline: m.spec.Name, Slot: m.spec.Options["slot.name"], Publication: m.spec.Options["publication.name"],
	}}
	err = m.readSource(ctx, e, r.Source)
	for tries := 1; pg.Vanished(err) && m.snapshot == "" && tries < vanishTries; tries++ {
		err = m.readSource(ctx, e, r.Source)
	}
	if err != nil {
		return nil, err
	}
	if err := m.readTarget(ctx, e, r.Target); err != nil {
		return nil, err
	}
	m.before()
	m.after()
	m.describe()
	return m.p, nil
}

// vanishTries bounds how often the source is read while others drop what is described.
const vanishTries = 5

// appName is shown in pg_stat_activity.
const appName = "weir plan"

func connect(ctx context.Context, e *env.Env, cfg *pg.Config, code errs.Code, side string) (*pgx.Conn, error) {
	conn, err := pg.ConnectPgx(ctx, e, cfg, pg.ConnectOptions{AppName: appName, Settings: map[string]string{
		"default_transaction_read_only": "on",
		"jit":                           "off", // compiling a query about a large catalog takes longer than the query
	}})
	if err != nil {
		return nil, errs.New(code, "cannot reach %s %s: %w", side, cfg.Server(), err)
	}
	return conn, nil
}

type maker struct {
	spec     api.MirrorSpec
	snapshot string
	only     []uint32 // nil: every table that is selected
	resume   bool
	names    map[uint32]pg.TargetName // of tables that may be called otherwise by now
	asked    bool                     // the patterns have just been written
	judged   bool                     // see Request
	p        *Plan

	tables    []*pg.Table
	left      []selection.Left
	unmatched []string
	idle      []string

	there     map[string]bool // what Before passes over: the target has these schemas
	opts      pg.TargetOptions
	available map[string]bool // extensions that the target could install
	role      string          // the target's
	foreign   int             // foreign keys that are to be made
	mirrored  map[uint32]*pg.Target
}

// readSource reads everything in one view of the catalog.
func (m *maker) readSource(ctx context.Context, e *env.Env, cfg *pg.Config) error {
	conn, err := connect(ctx, e, cfg, errs.SourceUnreachable, "source")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if m.p.SourceIdentity, err = pg.SystemIdentity(ctx, conn); err != nil && conn.IsClosed() {
		return fmt.Errorf("plan: read source %s: %w", cfg.Server(), err)
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("plan: read source %s: %w", cfg.Server(), err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if m.snapshot != "" {
		if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT "+pg.Literal(m.snapshot)); err != nil {
			return fmt.Errorf("plan: read source %s: %w", cfg.Server(), err)
		}
	}
	if err := m.describeSource(ctx, tx, cfg); err != nil {
		if _, ok := errs.As(err); ok {
			return err
		}
		return fmt.Errorf("plan: read source %s: %w", cfg.Server(), err)
	}
	return nil
}

func (m *maker) describeSource(ctx context.Context, q pg.Querier, cfg *pg.Config) error {
	names, err := pg.ListTables(ctx, q)
	if err != nil {
		return err
	}
	if m.only != nil {
		names = slices.DeleteFunc(names, func(t pg.TableName) bool { return !slices.Contains(m.only, t.OID) })
	}
	picked, left := m.p.Selection.Pick(names)
	m.left, m.unmatched, m.idle = left, m.p.Selection.Unmatched(names), m.p.Selection.Idle(names)
	for _, l := range left {
		if l.Named && !l.Part {
			return errs.New(errs.TableUnsupported, "%s cannot be mirrored: %s", l.Table, l.Why)
		}
	}
	if len(picked) == 0 {
		return noTables(cfg, names, left)
	}
	if m.asked {
		if err := m.p.Selection.Check(names, func() ([]pg.ColumnName, error) { return pg.ListColumns(ctx, q, names) }); err != nil {
			return err
		}
	}
	if err := m.p.Selection.Collisions(picked); err != nil {
		return err
	}
	oids := make([]uint32, len(picked))
	for i, t := range picked {
		oids[i] = t.OID
	}
	if m.tables, err = pg.LoadTables(ctx, q, oids); err != nil {
		return err
	}
	for _, t := range m.tables {
		if name, ok := m.names[t.OID]; ok {
			t.Schema, t.Name = name.Schema, name.Name
		}
	}
	if m.p.Types, err = pg.LoadTypes(ctx, q, m.tables); err != nil {
		return err
	}
	installed, err := pg.LoadExtensions(ctx, q)
	if err != nil {
		return err
	}
	m.p.Extensions = pg.Extensions(m.tables, m.p.Types, installed)
	return nil
}

func noTables(cfg *pg.Config, names []pg.TableName, left []selection.Left) error {
	e := errs.New(errs.NoTables, "no table of %s matches", cfg.Server())
	if len(left) > 0 {
		return e.WithDetail("%s matches and is left out: %s", left[0].Table, left[0].Why)
	}
	var some []string
	for _, n := range names[:min(len(names), 5)] {
		some = append(some, n.String())
	}
	if len(some) == 0 {
		return e.WithHint("the database has no tables of users")
	}
	return e.WithHint("the database has %d tables, such as %s", len(names), strings.Join(some, ", "))
}

// keyOf names the columns by which rows are found: what the source sends with deletes, or with FULL the primary key.
func keyOf(t *pg.Table) []string {
	switch {
	case t.Identity != 'f' && len(t.IdentityKey) > 0:
		return t.IdentityKey
	case t.PrimaryKey != nil:
		return t.PrimaryKey.Columns
	}
	return nil
}

func (m *maker) excluded(t *pg.Table) ([]string, error) {
	var out []string
	for _, c := range t.Columns {
		if m.p.Selection.Excluded(t.Schema, t.Name, c.Name) {
			if slices.Contains(keyOf(t), c.Name) {
				return nil, errs.New(errs.BadPattern, "column %s of %s cannot be excluded: it is part of the key by which rows are found", pg.Ident(c.Name), t)
			}
			out = append(out, c.Name)
		}
	}
	return out, nil
}

func (m *maker) before() {
	p := m.p
	for _, x := range p.Extensions {
		switch {
		case m.opts.Extensions[x.Name] != "":
		case m.available[x.Name]:
			m.opts.Extensions[x.Name] = x.Schema
			p.setup = append(p.setup, pg.CreateExtension(x))
		default:
			m.note("extension %s is not available on the target", x.Name)
		}
	}
	types, notes := pg.CreateTypes(p.Types, m.opts)
	p.setup = append(p.setup, types...)
	p.API.Notes = append(p.API.Notes, notes...)

	schemas := map[string]bool{}
	m.mirrored = make(map[uint32]*pg.Target, len(p.Tables))
	for _, t := range p.Tables {
		exclude := t.Target.Options.ExcludeColumns
		t.Target.Options = m.opts
		t.Target.Options.ExcludeColumns = exclude
		t.Target.Options.WithoutPrimaryKey = !t.small
		m.mirrored[t.Source.OID] = &t.Target
		if t.Exists {
			continue
		}
		if s := t.Target.Name.Schema; !schemas[s] {
			schemas[s] = true
			p.setup = append(p.setup, pg.CreateSchema(s))
		}
		p.setup = append(p.setup, t.Target.Sequences()...)
		st := t.Target.CreateTable()
		if p.pipeline != "" { // else nobody makes it
			st.SQL = append(st.SQL, "COMMENT ON TABLE "+t.Target.Name.String()+" IS "+pg.Literal(m.p.markOf(t.Source.String())))
		}
		p.create = append(p.create, st)
	}
	p.Before = append(slices.Clone(p.setup), p.create...)
}

// mark begins the comment of a table that weir made and has not finished.
const mark = "weir: unfinished copy of "

// markOf is the comment of a source table's unfinished copy, and by its end that of this pipeline's tables alone.
func (p *Plan) markOf(source string) string { return mark + source + p.owner() }

func (p *Plan) owner() string { return " by pipeline " + p.pipeline }

// after lists what is built over the copied rows, foreign keys last: they need the unique keys that they point to.
func (m *maker) after() {
	p := m.p
	var keys, uniques, indexes, checks, foreign []step
	for _, t := range p.Tables {
		if t.Exists && !t.Unfinished || m.resume && !t.Exists {
			continue
		}
		add := func(list *[]step, statements ...pg.Statement) {
			for _, st := range statements {
				*list = append(*list, step{st, t.small, t})
			}
		}
		if st, ok := t.Target.PrimaryKey(); ok && (!t.small || t.Unfinished) {
			add(&keys, st) // an unfinished table may have been large when it was made
		}
		add(&uniques, t.Target.UniqueConstraints()...)
		add(&indexes, t.Target.SecondaryIndexes()...)
		add(&checks, t.Target.Checks()...)
		fks, _ := t.Target.ForeignKeys(m.referable(t))
		add(&foreign, fks...)
	}
	p.keys, m.foreign = len(keys), len(foreign)
	p.steps = slices.Concat(keys, uniques, indexes, checks, foreign)
	for _, s := range p.steps {
		p.After = append(p.After, s.Statement)
	}
}

// referable are the tables that a foreign key may point to: all that have all their rows.
func (m *maker) referable(t *TablePlan) map[uint32]*pg.Target {
	var filtered []uint32
	for _, k := range t.Source.ForeignKeys {
		if ref := m.mirrored[k.RefTable]; ref != nil && m.p.Selection.Filter(ref.Source.Schema, ref.Source.Name) != "" {
			filtered = append(filtered, k.RefTable)
		}
	}
	if len(filtered) == 0 {
		return m.mirrored
	}
	out := make(map[uint32]*pg.Target, len(t.Source.ForeignKeys))
	for _, k := range t.Source.ForeignKeys {
		if ref := m.mirrored[k.RefTable]; ref != nil && !slices.Contains(filtered, k.RefTable) {
			out[k.RefTable] = ref
		}
	}
	return out
}

func (m *maker) note(format string, args ...any) {
	m.p.API.Notes = append(m.p.API.Notes, fmt.Sprintf(format, args...))
}

// describe fills in what users see.
func (m *maker) describe() {
	p := m.p
	for _, t := range p.Tables {
		line := api.PlanTable{Source: t.Source.String(), Target: pg.DottedName(t.Target.Name.Schema, t.Target.Name.Name),
			Rows: t.EstRows, Bytes: t.EstBytes, Key: t.Key, Exists: t.Exists}
		if !t.Exists {
			_, fks := t.Target.ForeignKeys(m.referable(t))
			line.Notes = append(t.Target.Notes(), fks...)
		}
		if t.Key == nil {
			line.Notes = append(line.Notes, "it has no key: rows are found by all their columns")
		}
		p.API.Tables = append(p.API.Tables, line)
		p.API.Rows += t.EstRows
		p.API.Bytes += t.EstBytes
	}
	for _, st := range p.Before {
		if m.there[st.What] {
			continue
		}
		m.there[st.What] = true // types and tables may want the same schema
		p.API.DDL = append(p.API.DDL, st.SQL...)
	}
	for _, st := range p.After {
		p.API.AfterCopy = append(p.API.AfterCopy, st.SQL...)
	}
	for _, l := range m.left {
		if !l.Part {
			m.note("%s is left out: %s", l.Table, l.Why)
		}
	}
	for _, text := range m.unmatched {
		m.note("nothing matches %s", text)
	}
	for _, text := range m.idle {
		m.note("%s matches no table", text)
	}
	if n, err := strconv.Atoi(m.spec.Options["sink.lanes"]); err == nil && n > 1 {
		m.note("commits are not atomic: %d lanes share the tables, and a reader may see a transaction of the source in some of them before the others", n)
	}
	if m.opts.DeferForeignKeys && m.foreign > 0 {
		m.note("foreign keys are DEFERRABLE INITIALLY DEFERRED and without actions until the cut-over, because role %s may not set session_replication_role on the target: within a transaction rows come in any order, and what actions did at the source comes as rows of its own", pg.Ident(m.role))
	}
	p.API.EstSeconds = (p.API.Bytes + copyRate - 1) / copyRate
	m.note("the estimate assumes %d MiB/s", copyRate>>20)
}
