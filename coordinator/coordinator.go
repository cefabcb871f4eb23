// Package coordinator decides what runs and keeps it running: the catalog says what the user wants, and every pipeline
// is driven towards that until it is so, through failures of either side.
//
// A decision exists when raft has replicated it. A pipeline never runs without a generation that the catalog minted for
// this very start, so whoever holds an older one is refused wherever that matters. An error that only the user can
// remove stops a pipeline until the user says so; any other is tried again.
package coordinator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/raft"
)

// Options configures a Coordinator.
type Options struct {
	State  *State // required; the caller closes it after the Coordinator
	Runner Runner // required

	// Seal moves passwords out of a definition into the secret store and leaves references. Without it a definition
	// that holds one is refused.
	Seal func(ctx context.Context, m api.MirrorSpec) (api.MirrorSpec, error)

	// SealQuery does the same for the text of a pipeline of queries. Without it none can be made.
	SealQuery func(ctx context.Context, q api.QuerySpec) (api.QuerySpec, error)

	// CheckOptions refuses other options for a pipeline of queries that its state would not survive. Nil: nothing is refused.
	CheckOptions func(was, will api.QuerySpec) error

	// Told: whoever opened the node tells what a pipeline fails with, so that the log need not repeat it. Nil: of none.
	Told func(pipeline string) bool

	// CheckAdd refuses to add tables to m, which names them already, when m would not take them. The coordinator does
	// not know what a pattern means. Nil: nothing is refused.
	CheckAdd func(m api.MirrorSpec, added []string) error
	// Covers tells whether m takes all that a pattern of an add is about, but for what m.Except still leaves out. Nil: never.
	Covers func(m api.MirrorSpec, pattern string) bool
}

// Coordinator runs the control plane of one node.
type Coordinator struct {
	env    *env.Env
	opts   Options
	runner Runner
	node   *raft.Node
	fsm    *fsm
	ctx    context.Context // of everything it starts
	cancel context.CancelFunc

	closeOnce sync.Once
	closeErr  error

	mu struct {
		sync.Mutex
		closing bool
		drivers map[string]*driver // by pipeline id
		told    map[string]wanted  // the last wish each driver was told
	}
}

// Open recovers the catalog and starts the pipelines that should run. It returns when the node leads and its catalog
// holds everything that was decided.
func Open(ctx context.Context, e *env.Env, opts Options) (*Coordinator, error) {
	c := &Coordinator{env: e.With("part", "coordinator"), opts: opts, runner: opts.Runner, fsm: newFSM()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.drivers, c.mu.told = map[string]*driver{}, map[string]wanted{}
	node, err := raft.Open(e, raft.Options{Dir: opts.State.RaftDir(), NodeID: opts.State.NodeID(), FSM: c.fsm})
	if err != nil {
		c.cancel()
		return nil, err
	}
	c.node = node
	err = node.WaitLeader(ctx)
	if err == nil {
		err = node.Barrier(ctx)
	}
	if err != nil {
		c.cancel()
		return nil, errors.Join(err, node.Shutdown())
	}
	c.reconcile()
	c.env.Go("reconcile", c.watch)
	return c, nil
}

// watch follows decisions that came from elsewhere.
func (c *Coordinator) watch() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.fsm.changed:
			c.reconcile()
		}
	}
}

// reconcile gives every pipeline a driver and every driver its newest wish.
func (c *Coordinator) reconcile() {
	var records []pipelineRecord
	c.fsm.view(func(cat *catalog) { records = cat.list() })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closing {
		return
	}
	live := map[string]bool{}
	for _, r := range records {
		id := r.Pipeline.ID
		live[id] = true
		d := c.mu.drivers[id]
		if d == nil {
			d = newDriver(c, r.Pipeline)
			c.mu.drivers[id] = d
		}
		if w := (wanted{r.Pipeline.Desired, r.Force}); c.mu.told[id] != w {
			c.mu.told[id] = w
			d.post(w)
		}
	}
	for id, d := range c.mu.drivers {
		if !live[id] {
			d.post(closing{})
			delete(c.mu.drivers, id)
			delete(c.mu.told, id)
		}
	}
}

// Close stops every pipeline with a final cut and leaves raft. What the user wants of the pipelines stays: they run
// again after the next Open. When ctx ends first, pipelines are stopped without their cut.
func (c *Coordinator) Close(ctx context.Context) error {
	c.closeOnce.Do(func() {
		c.mu.Lock()
		c.mu.closing = true
		drivers := make([]*driver, 0, len(c.mu.drivers))
		for _, d := range c.mu.drivers {
			drivers = append(drivers, d)
		}
		c.mu.Unlock()
		for _, d := range drivers {
			d.post(closing{})
		}
		for _, d := range drivers {
			select {
			case <-d.done:
			case <-c.node.Failed():
				c.cancel()
			case <-ctx.Done():
				c.cancel()
			}
		}
		c.cancel()
		for _, d := range drivers {
			<-d.done
		}
		c.env.Wait()
		c.closeErr = c.node.Shutdown()
	})
	return c.closeErr
}

// propose replicates an entry and returns its answer, or the refusal. An error that wraps raft.ErrUnknown leaves open
// whether it was decided.
func (c *Coordinator) propose(ctx context.Context, e Entry) (any, error) {
	b, err := EncodeEntry(e)
	if errors.Is(err, errEntryTooLarge) {
		return nil, errs.New(errs.BadFlag, "the definition is too large: %v", err)
	}
	if err != nil {
		return nil, errs.New(errs.EngineInternal, "%v", err)
	}
	got, err := c.node.Apply(ctx, b)
	if err != nil {
		return nil, err
	}
	a := got.(answer)
	return a.value, a.refused
}

// newGeneration mints; an unknown outcome burns a number, which does no harm.
func (c *Coordinator) newGeneration(ctx context.Context, id string) (dataflow.Generation, error) {
	v, err := c.propose(ctx, NewGeneration{ID: id})
	if err != nil {
		return 0, err
	}
	return dataflow.Generation(v.(uint64)), nil
}

// RecordCheckpoint makes a checkpoint of a pipeline whose truth is raft. A nil error is the commit point. An error that
// wraps raft.ErrUnknown leaves it open: the caller must end, and its successor asks LastCheckpoint.
func (c *Coordinator) RecordCheckpoint(ctx context.Context, cp Checkpoint) error {
	_, err := c.propose(ctx, cp)
	return err
}

// RecordSchemaStep records step n of a pipeline's schema. It follows the same rules as RecordCheckpoint.
func (c *Coordinator) RecordSchemaStep(ctx context.Context, s SchemaStep) error {
	_, err := c.propose(ctx, s)
	return err
}

// LastCheckpoint is the newest accepted checkpoint of a pipeline, as of everything decided before the call.
func (c *Coordinator) LastCheckpoint(ctx context.Context, id string) (Checkpoint, error) {
	if err := c.node.Barrier(ctx); err != nil {
		return Checkpoint{}, err
	}
	var cp Checkpoint
	var err error
	c.fsm.view(func(cat *catalog) {
		r, refused := cat.find(id)
		if refused != nil {
			err = refused
			return
		}
		cp = Checkpoint{ID: id, Generation: r.Pipeline.Generation, Checkpoint: r.Checkpoint, Digest: r.Digest, Bytes: r.Bytes, Positions: r.Positions}
	})
	return cp, err
}

// PutConnection stores a named connection.
func (c *Coordinator) PutConnection(ctx context.Context, conn api.Connection) error {
	_, err := c.propose(ctx, PutConnection{conn})
	return err
}

// Connections lists the named connections in order of name.
func (c *Coordinator) Connections() []api.Connection {
	var out []api.Connection
	c.fsm.view(func(cat *catalog) {
		for _, conn := range cat.connections {
			out = append(out, conn)
		}
	})
	slices.SortFunc(out, func(a, b api.Connection) int { return compare(a.Name, b.Name) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// CreateMirror records a mirror, which then starts.
func (c *Coordinator) CreateMirror(ctx context.Context, m api.MirrorSpec) (api.Pipeline, error) {
	var err error
	if m.Source, err = c.resolve("source", m.Source); err != nil {
		return api.Pipeline{}, err
	}
	if m.Target, err = c.resolve("target", m.Target); err != nil {
		return api.Pipeline{}, err
	}
	if m.Source.Name == "" {
		m.Source.Name = m.Name
	}
	if m.Tables == nil {
		m.Tables = []string{}
	}
	if c.opts.Seal != nil {
		if m, err = c.opts.Seal(ctx, m); err != nil {
			return api.Pipeline{}, err
		}
	}
	if err := checkSpec(m); err != nil {
		return api.Pipeline{}, err
	}
	id := c.env.IDs.New()
	at := c.env.Clock.Now().UTC().Round(time.Microsecond)
	if _, err := c.propose(ctx, CreatePipeline{ID: id, At: at, Mirror: m}); err != nil {
		return api.Pipeline{}, err
	}
	c.reconcile()
	return c.lookup(id)
}

// CreateQuery records a pipeline of queries, which then starts.
func (c *Coordinator) CreateQuery(ctx context.Context, q api.QuerySpec) (api.Pipeline, error) {
	if c.opts.SealQuery == nil {
		return api.Pipeline{}, errs.New(errs.NotBuiltYet, "this node runs no queries")
	}
	q, err := c.opts.SealQuery(ctx, q)
	if err != nil {
		return api.Pipeline{}, err
	}
	id := c.env.IDs.New()
	at := c.env.Clock.Now().UTC().Round(time.Microsecond)
	if _, err := c.propose(ctx, CreatePipeline{ID: id, At: at, Query: &q}); err != nil {
		return api.Pipeline{}, err
	}
	c.reconcile()
	return c.lookup(id)
}

// resolve fills in the URL of a connection that was only named.
func (c *Coordinator) resolve(what string, conn api.Connection) (api.Connection, error) {
	if conn.URL != "" {
		return conn, nil
	}
	known := c.Connections()
	names := make([]string, len(known))
	for i, k := range known {
		if k.Name == conn.Name {
			return k, nil
		}
		names[i] = k.Name
	}
	err := errs.New(errs.BadURL, "the %s has no URL", what)
	if conn.Name != "" {
		err = errs.New(errs.BadURL, "connection %q does not exist", conn.Name)
		if near := nearest(conn.Name, names); near != "" {
			err = err.WithHint("did you mean %q?", near)
		}
	}
	return conn, err
}

// PipelineView is a pipeline with where it stands.
type PipelineView struct {
	api.Pipeline
	Status api.PipelineStatus `json:"status"`
}

// Pipelines lists all pipelines in order of name.
func (c *Coordinator) Pipelines() []PipelineView {
	var records []pipelineRecord
	c.fsm.view(func(cat *catalog) { records = cat.list() })
	out := make([]PipelineView, len(records))
	for i, r := range records {
		out[i] = c.viewOf(r.Pipeline)
	}
	return out
}

// Pipeline gives one, by name or id.
func (c *Coordinator) Pipeline(name string) (PipelineView, error) {
	p, err := c.lookup(name)
	if err != nil {
		return PipelineView{}, err
	}
	return c.viewOf(p), nil
}

func (c *Coordinator) viewOf(p api.Pipeline) PipelineView {
	v := PipelineView{Pipeline: p}
	if d := c.driver(p.ID); d != nil {
		v.Status = d.status()
	} else {
		now := c.env.Clock.Now()
		v.Status = api.PipelineStatus{Phase: api.PhaseStarting, Since: now, LagBytes: -1, LagMS: -1, UpdatedAt: now}
	}
	return v
}

// lookup finds a pipeline by name or id.
func (c *Coordinator) lookup(name string) (api.Pipeline, error) {
	var p api.Pipeline
	var err error
	c.fsm.view(func(cat *catalog) {
		id, ok := cat.names[name]
		if !ok {
			id = name
		}
		r, ok := cat.pipelines[id]
		if ok {
			p = r.Pipeline
			return
		}
		e := errs.New(errs.PipelineNotFound, "pipeline %q does not exist", name)
		var names []string
		for _, r := range cat.list() {
			names = append(names, r.Pipeline.Name)
		}
		switch near := nearest(name, names); {
		case near != "":
			e = e.WithHint("did you mean %q?", near)
		case len(names) == 0:
			e = e.WithHint("there is none yet; weir mirror creates one")
		default:
			e = e.WithHint("weir pipelines list shows all")
		}
		err = e
	})
	return p, err
}

func (c *Coordinator) driver(id string) *driver {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.drivers[id]
}

// want records a wish and makes it known at once.
func (c *Coordinator) want(ctx context.Context, name string, desired api.Desired, force bool) (api.Pipeline, error) {
	p, err := c.lookup(name)
	if err != nil {
		return p, err
	}
	if _, err := c.propose(ctx, SetDesired{ID: p.ID, Desired: desired, Force: force}); err != nil {
		return p, err
	}
	c.reconcile()
	return c.lookup(p.ID)
}

// Pause stops a pipeline with a final cut. It returns when the wish is recorded; WaitPhase waits for the deed.
func (c *Coordinator) Pause(ctx context.Context, name string) (api.Pipeline, error) {
	return c.want(ctx, name, api.WantPaused, false)
}

// Resume starts a paused pipeline, and one that failed and waits for the user.
func (c *Coordinator) Resume(ctx context.Context, name string) (api.Pipeline, error) {
	p, err := c.want(ctx, name, api.WantRunning, false)
	if err != nil {
		return p, err
	}
	if d := c.driver(p.ID); d != nil {
		d.post(resumed{})
	}
	return p, nil
}

// Delete removes a pipeline and what it made outside. It returns when the wish is recorded; WaitGone waits for the
// deed. With force it ends although the source or target cannot be reached to clean up.
func (c *Coordinator) Delete(ctx context.Context, name string, force bool) error {
	p, err := c.lookup(name)
	if err != nil {
		return err
	}
	if _, err := c.propose(ctx, SetDesired{ID: p.ID, Desired: api.WantDeleted, Force: force}); err != nil {
		return err
	}
	c.reconcile()
	if d := c.driver(p.ID); d != nil {
		d.post(resumed{}) // a repeated delete tries again now
	}
	return nil
}

// Change is an update of a mirror's tables, by globs over schema.table, or of the options of a pipeline of queries.
type Change struct {
	AddTables    []string `json:"add_tables,omitempty"`
	RemoveTables []string `json:"remove_tables,omitempty"`
	// Options take the place of all that a pipeline of queries has.
	Options map[string]string `json:"options,omitzero"`
}

// Update changes the tables of a mirror. A pipeline that rests forgets those that leave. Then the catalog is changed, because
// it is what every start reads; a running pipeline is told after that, and started anew if it cannot follow while it runs.
func (c *Coordinator) Update(ctx context.Context, name string, change Change) (api.Pipeline, error) {
	p, err := c.lookup(name)
	if err != nil {
		return p, err
	}
	if p.Query != nil {
		return c.updateQuery(ctx, p, change)
	}
	if change.Options != nil {
		return p, errs.New(errs.PipelineState, "pipeline %q is a mirror: its options cannot be changed", p.Name)
	}
	if len(change.AddTables)+len(change.RemoveTables) == 0 {
		return p, errs.New(errs.BadFlag, "the update of pipeline %q names no tables", p.Name)
	}
	m := c.changed(p.Mirror, change)
	if c.opts.CheckAdd != nil {
		if err := c.opts.CheckAdd(m, change.AddTables); err != nil {
			return p, err
		}
	}
	if err := c.forget(ctx, p, without(p.Mirror.Except, m.Except), change.RemoveTables); err != nil {
		return p, err
	}
	if _, err := c.propose(ctx, UpdatePipeline{ID: p.ID, Version: p.Version, Mirror: m}); err != nil {
		return p, err
	}
	if d := c.driver(p.ID); d != nil {
		if err := d.tell(ctx, change); err != nil {
			c.env.Log.Info("pipeline is started anew with its changed tables", "pipeline", p.Name, "reason", err)
			d.post(changed{})
		} else {
			d.forgetAtStart(nil)
		}
	}
	return c.lookup(p.ID)
}

// updateQuery gives a pipeline of queries other options, which hold from its next start on. One that runs is started anew.
func (c *Coordinator) updateQuery(ctx context.Context, p api.Pipeline, change Change) (api.Pipeline, error) {
	if len(change.AddTables)+len(change.RemoveTables) > 0 {
		return p, noMirror(p)
	}
	if change.Options == nil {
		return p, errs.New(errs.BadFlag, "the update of pipeline %q names no options", p.Name)
	}
	q := *p.Query
	q.Options = change.Options
	if c.opts.SealQuery != nil {
		var err error
		if q, err = c.opts.SealQuery(ctx, q); err != nil {
			return p, err
		}
	}
	if c.opts.CheckOptions != nil {
		if err := c.opts.CheckOptions(*p.Query, q); err != nil {
			return p, err
		}
	}
	if _, err := c.propose(ctx, UpdatePipeline{ID: p.ID, Version: p.Version, Query: &q}); err != nil {
		return p, err
	}
	if d := c.driver(p.ID); d != nil {
		d.post(changed{})
	}
	return c.lookup(p.ID)
}

// SetAdded gives a pipeline of queries other added statements, if it still is at that version, and starts it with them.
// It returns when that is recorded.
func (c *Coordinator) SetAdded(ctx context.Context, id string, version uint64, added []string) (api.Pipeline, error) {
	p, err := c.lookup(id)
	if err != nil {
		return p, err
	}
	if p.Query == nil {
		return p, errs.New(errs.PipelineState, "pipeline %q is a mirror: no statement can be added to it", p.Name)
	}
	q := *p.Query
	q.Added = added
	if c.opts.SealQuery != nil {
		if q, err = c.opts.SealQuery(ctx, q); err != nil {
			return p, err
		}
	}
	if _, err := c.propose(ctx, UpdatePipeline{ID: p.ID, Version: version, Query: &q}); err != nil {
		return p, err
	}
	if d := c.driver(p.ID); d != nil {
		d.post(changed{})
		d.post(resumed{}) // if it failed or has ended
	}
	return c.lookup(p.ID)
}

func noMirror(p api.Pipeline) *errs.Error {
	return errs.New(errs.PipelineState, "pipeline %q is no mirror", p.Name).WithHint("its tables are those of its SQL: weir pipelines get %s", p.Name)
}

// changed is a definition with a change of its tables. An add takes back what a remove has put into Except, and the
// definition then is what it was, or the command that it came from would be refused as another mirror's.
func (c *Coordinator) changed(m api.MirrorSpec, change Change) api.MirrorSpec {
	back := without(m.Except, without(m.Except, change.AddTables))
	m.Except = without(m.Except, change.AddTables)
	// Without any pattern every table is meant: removing the last must not add all others, nor adding one remove them.
	if rest := without(m.Tables, change.RemoveTables); len(rest) > 0 {
		m.Tables = rest
	}
	if len(m.Tables) > 0 {
		add := without(change.AddTables, m.Tables)
		if c.opts.Covers != nil {
			add = slices.DeleteFunc(add, func(s string) bool { return slices.Contains(back, s) && c.opts.Covers(m, s) })
		}
		m.Tables = append(slices.Clip(m.Tables), add...)
	}
	m.Except = append(slices.Clip(m.Except), without(change.RemoveTables, m.Except)...)
	return m
}

// settleLimit is how long a change of tables waits for a pipeline that neither rests nor works.
const settleLimit = 10 * time.Second

// forget has a pipeline that rests forget tables before they leave its definition; one that runs lets go of them itself.
// After a crash in between they are still selected and join anew. Tables whose removal is taken back it forgets, too, a
// running one when it starts with the new definition: there may have been no time to see that they had left.
func (c *Coordinator) forget(ctx context.Context, p api.Pipeline, back, removed []string) error {
	later, ok := c.runner.(LaterCommander)
	d := c.driver(p.ID)
	patterns := append(slices.Clip(back), removed...)
	if !ok || d == nil || len(patterns) == 0 {
		return nil
	}
	for began := c.env.Clock.Now(); ; {
		resting := d.resting()
		if resting == nil {
			err := later.CommandLater(ctx, p, api.Command{Verb: "remove-tables", Tables: patterns}, d.resting)
			if err == nil || d.resting() == nil {
				return err
			}
			continue // it was started meanwhile
		}
		if !d.unsettled() {
			if len(back) > 0 {
				d.forgetAtStart(back)
			}
			return nil
		}
		if c.env.Clock.Now().Sub(began) >= settleLimit {
			return resting
		}
		if err := c.env.Clock.Sleep(ctx, waitStep); err != nil {
			return err
		}
	}
}

func without(list, drop []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if !slices.Contains(drop, s) {
			out = append(out, s)
		}
	}
	return out
}

// tell passes a change to a running pipeline. Where none runs, the driver decides what that means.
func (d *driver) tell(ctx context.Context, change Change) error {
	r, err := d.now()
	if err != nil {
		return err
	}
	if len(change.RemoveTables) > 0 {
		if err := r.Command(ctx, api.Command{Verb: "remove-tables", Tables: change.RemoveTables}); err != nil {
			return err
		}
	}
	if len(change.AddTables) > 0 {
		return r.Command(ctx, api.Command{Verb: "add-tables", Tables: change.AddTables})
	}
	return nil
}

// Command gives an order to a pipeline. Orders that change the definition are recorded first; one that is paused, has
// failed or waits to try again carries the others out when it starts.
func (c *Coordinator) Command(ctx context.Context, name string, cmd api.Command) error {
	switch cmd.Verb {
	case "add-tables":
		_, err := c.Update(ctx, name, Change{AddTables: cmd.Tables})
		return err
	case "remove-tables":
		_, err := c.Update(ctx, name, Change{RemoveTables: cmd.Tables})
		return err
	case "refresh":
	default:
		verbs := []string{"refresh", "add-tables", "remove-tables"}
		err := errs.New(errs.UnknownOption, "unknown command %q", cmd.Verb)
		if near := nearest(cmd.Verb, verbs); near != "" {
			return err.WithHint("did you mean %q?", near)
		}
		return err.WithHint("the commands are refresh, add-tables and remove-tables")
	}
	p, err := c.lookup(name)
	if err != nil {
		return err
	}
	if p.Query != nil {
		return noMirror(p)
	}
	d := c.driver(p.ID)
	if d == nil {
		return errs.New(errs.PipelineState, "pipeline %q is not running", p.Name)
	}
	r, err := d.now()
	if err == nil {
		return r.Command(ctx, cmd)
	}
	if later, ok := c.runner.(LaterCommander); ok && d.resting() == nil {
		return later.CommandLater(ctx, p, cmd, d.resting)
	}
	return err
}

// sourceLimit is how long one source has to answer for a listing.
const sourceLimit = 5 * time.Second

// mirrors lists the pipelines that are mirrors.
func (c *Coordinator) mirrors() []PipelineView {
	return slices.DeleteFunc(c.Pipelines(), func(v PipelineView) bool { return v.Query != nil })
}

// Sources asks the source of every mirror, all at once. One that does not answer is listed without its figures.
func (c *Coordinator) Sources(ctx context.Context) []api.SourceStatus {
	views := c.mirrors()
	out := make([]api.SourceStatus, len(views))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var answered sync.WaitGroup
	for i, v := range views {
		answered.Add(1)
		c.env.Go("ask the source of "+v.Name, func() {
			defer answered.Done()
			out[i] = c.sourceOf(ctx, v.Pipeline)
		})
	}
	all := make(chan struct{})
	c.env.Go("await the sources", func() { answered.Wait(); close(all) })
	limit := c.env.Clock.NewTimer(sourceLimit)
	defer limit.Stop()
	select {
	case <-all:
	case <-limit.C():
		cancel()
		<-all
	}
	return out
}

func (c *Coordinator) sourceOf(ctx context.Context, p api.Pipeline) api.SourceStatus {
	s, err := c.ask(ctx, p)
	if err != nil {
		c.env.Log.Debug("source did not answer", "pipeline", p.Name, "error", err)
		s = api.SourceStatus{LagBytes: -1, LagMS: -1, WALRetainedBytes: -1, WALLimitBytes: -1}
	}
	s.Name, s.Pipeline = p.Mirror.Source.Name, p.Name
	return s
}

// ask goes through the pipeline, or past it when it does not run.
func (c *Coordinator) ask(ctx context.Context, p api.Pipeline) (api.SourceStatus, error) {
	if d := c.driver(p.ID); d != nil {
		if r, _ := d.now(); r != nil {
			return r.Source(ctx)
		}
	}
	if prober, ok := c.runner.(SourceProber); ok {
		return prober.ProbeSource(ctx, p)
	}
	return api.SourceStatus{}, errs.New(errs.PipelineState, "pipeline %q is not running", p.Name)
}

// Source gives the status of a source, by its name or by its pipeline's name or id.
func (c *Coordinator) Source(ctx context.Context, name string) (api.SourceStatus, error) {
	p, err := c.pipelineOfSource(name)
	if err != nil {
		return api.SourceStatus{}, err
	}
	return c.sourceOf(ctx, p), nil
}

func (c *Coordinator) pipelineOfSource(name string) (api.Pipeline, error) {
	var names []string
	for _, v := range c.mirrors() {
		if name == v.Mirror.Source.Name || name == v.Name || name == v.ID {
			return v.Pipeline, nil
		}
		names = append(names, v.Mirror.Source.Name)
	}
	err := errs.New(errs.PipelineNotFound, "source %q does not exist", name)
	if near := nearest(name, names); near != "" {
		err = err.WithHint("did you mean %q?", near)
	}
	return api.Pipeline{}, err
}

// RefreshSource copies tables of a source anew; no tables means all of them.
func (c *Coordinator) RefreshSource(ctx context.Context, name string, tables []string) error {
	p, err := c.pipelineOfSource(name)
	if err != nil {
		return err
	}
	return c.Command(ctx, p.ID, api.Command{Verb: "refresh", Tables: tables})
}

// waitStep is how often a wait looks. A pipeline's phase is known only by asking it.
const waitStep = 20 * time.Millisecond

// WaitPhase returns when the pipeline is in one of the phases. A pipeline that fails and needs the user will not get
// there by itself, so its error ends the wait.
func (c *Coordinator) WaitPhase(ctx context.Context, name string, phases ...api.Phase) (PipelineView, error) {
	for {
		v, err := c.Pipeline(name)
		if err != nil {
			return v, err
		}
		if slices.Contains(phases, v.Status.Phase) {
			return v, nil
		}
		if v.Status.Phase == api.PhaseFailed && v.Status.Error != nil {
			return v, asError(v.Status.Error)
		}
		if err := c.env.Clock.Sleep(ctx, waitStep); err != nil {
			return v, errs.New(errs.NotCaughtUp, "pipeline %q is still in phase %s", v.Name, v.Status.Phase).Because(err)
		}
	}
}

func asError(i *api.ErrorInfo) error {
	return &errs.Error{Code: errs.Code(i.Code), Message: i.Message, Detail: i.Detail, Hint: i.Hint, Fix: i.Fix}
}

// WaitGone returns when a deleted pipeline and its traces are gone. It wants the id: the name may have a new owner.
func (c *Coordinator) WaitGone(ctx context.Context, id string) error {
	for {
		v, err := c.Pipeline(id)
		if errs.Is(err, errs.PipelineNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if v.Status.Phase == api.PhaseFailed && v.Status.Error != nil {
			return asError(v.Status.Error)
		}
		if err := c.env.Clock.Sleep(ctx, waitStep); err != nil {
			e := errs.New(errs.NotCaughtUp, "pipeline %q is still being deleted", v.Name).Because(err)
			if v, err = c.Pipeline(id); errs.Is(err, errs.PipelineNotFound) {
				return nil
			}
			if last := v.Status.Error; last != nil {
				e.WithDetail("%s (%s)", last.Message, last.Code).WithHint("%s", last.Hint)
			}
			return e
		}
	}
}

// Raft tells where the node stands.
func (c *Coordinator) Raft() raft.Stats { return c.node.Stats() }

// Ready tells whether decisions can be made here, and why not.
func (c *Coordinator) Ready() error {
	select {
	case <-c.node.Failed():
		return errs.New(errs.RaftFailed, "the raft log has failed")
	default:
	}
	if !c.node.Leader() {
		return errs.New(errs.RaftFailed, "there is no raft leader")
	}
	return nil
}

// Snapshot writes a raft snapshot now.
func (c *Coordinator) Snapshot(ctx context.Context) error { return c.node.Snapshot(ctx) }

// State is the directory the coordinator works in.
func (c *Coordinator) State() *State { return c.opts.State }
