package coordinator

import (
	"encoding/json"
	"sort"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// catalog is everything the cluster has decided. apply is its only way to change, and a function of the catalog and the
// entry alone: every node that applies the same entries holds the same catalog. Values handed out share memory with it,
// so an entry replaces what it changes and never edits it in place.
//
// It guards the invariants of exactly once that raft can guard:
//   - one winner: checkpoint numbers of a pipeline rise, each is accepted once, and only from the current generation;
//   - fences are monotone: generations of a pipeline rise and none is minted twice;
//   - positions are monotone: a checkpoint never stands before an earlier one within one incarnation of a source.
type catalog struct {
	connections map[string]api.Connection
	pipelines   map[string]pipelineRecord // by id
	names       map[string]string         // name to id; a name is free again once its delete has finished
}

// pipelineRecord is one pipeline with what only the catalog needs of it.
type pipelineRecord struct {
	Pipeline   api.Pipeline   `json:"pipeline"`
	Force      bool           `json:"force,omitempty"` // of the delete
	Checkpoint uint64         `json:"checkpoint,omitempty"`
	Digest     string         `json:"digest,omitempty"`
	Bytes      int64          `json:"bytes,omitempty"`
	Positions  []Position     `json:"positions,omitempty"` // by source
	Steps      uint64         `json:"steps,omitempty"`     // how many schema steps were recorded
	StepLog    []recordedStep `json:"step_log,omitempty"`  // the last ones
}

type recordedStep struct {
	N          uint64          `json:"n"`
	Generation uint64          `json:"generation"`
	Step       json.RawMessage `json:"step"`
}

// keptSteps bounds the schema steps the catalog remembers per pipeline. A step is needed until it is verified, which
// happens before the next one is recorded; the rest is history for people.
const keptSteps = 256

func newCatalog() *catalog {
	return &catalog{
		connections: map[string]api.Connection{},
		pipelines:   map[string]pipelineRecord{},
		names:       map[string]string{},
	}
}

// apply changes the catalog by an entry or refuses it. A refusal changes nothing, and is the same on every node.
func (c *catalog) apply(e Entry) (any, *errs.Error) {
	switch e := e.(type) {
	case PutConnection:
		return nil, c.putConnection(e)
	case CreatePipeline:
		return nil, c.createPipeline(e)
	case UpdatePipeline:
		return nil, c.updatePipeline(e)
	case SetDesired:
		return nil, c.setDesired(e)
	case NewGeneration:
		return c.newGeneration(e)
	case SchemaStep:
		return nil, c.schemaStep(e)
	case Checkpoint:
		return nil, c.checkpoint(e)
	case FinishDelete:
		return nil, c.finishDelete(e)
	default:
		return nil, errs.New(errs.EngineInternal, "catalog entry of kind %d has no rule", e.kind())
	}
}

func (c *catalog) putConnection(e PutConnection) *errs.Error {
	if e.Connection.Name == "" {
		return errs.New(errs.BadURL, "a connection needs a name")
	}
	if err := checkNoPassword("connection", e.Connection); err != nil {
		return err
	}
	c.connections[e.Connection.Name] = e.Connection
	return nil
}

func (c *catalog) createPipeline(e CreatePipeline) *errs.Error {
	name := e.name()
	if name == "" || e.ID == "" {
		return errs.New(errs.BadFlag, "a pipeline needs a name and an id")
	}
	var err *errs.Error
	if e.Query != nil {
		err = checkQuery(*e.Query)
	} else {
		err = checkSpec(e.Mirror)
	}
	if err != nil {
		return err
	}
	if id, taken := c.names[name]; taken {
		err := errs.New(errs.PipelineExists, "pipeline %q exists already", name)
		if c.pipelines[id].Pipeline.Desired == api.WantDeleted {
			return err.WithDetail("it is being deleted").WithHint("wait until it is gone, or choose another name with --name")
		}
		return err.WithHint("choose another name with --name, or delete it first: weir delete %s", name)
	}
	if _, taken := c.pipelines[e.ID]; taken {
		return errs.New(errs.PipelineExists, "a pipeline with id %s exists already", e.ID)
	}
	c.names[name] = e.ID
	c.pipelines[e.ID] = pipelineRecord{Pipeline: api.Pipeline{
		ID: e.ID, Name: name, Version: 1, Mirror: e.Mirror, Query: e.Query, Desired: api.WantRunning, CreatedAt: e.At,
	}}
	return nil
}

func (c *catalog) find(id string) (pipelineRecord, *errs.Error) {
	r, ok := c.pipelines[id]
	if !ok {
		return r, errs.New(errs.PipelineNotFound, "pipeline %s does not exist", id)
	}
	return r, nil
}

func (c *catalog) updatePipeline(e UpdatePipeline) *errs.Error {
	r, err := c.find(e.ID)
	if err != nil {
		return err
	}
	p := r.Pipeline
	if p.Desired == api.WantDeleted {
		return errs.New(errs.PipelineState, "pipeline %q is being deleted", p.Name)
	}
	if (p.Query == nil) != (e.Query == nil) {
		return errs.New(errs.PipelineState, "pipeline %q is of another kind", p.Name)
	}
	if p.Version != e.Version {
		return errs.New(errs.PipelineState, "pipeline %q was changed meanwhile", p.Name).
			WithDetail("the change was made for version %d, it is at version %d", e.Version, p.Version).
			WithHint("look at it again and repeat the change")
	}
	name := e.Mirror.Name
	if e.Query != nil {
		name = e.Query.Name
		err = checkQuery(*e.Query)
	} else {
		err = checkSpec(e.Mirror)
	}
	if name != p.Name {
		return errs.New(errs.PipelineState, "pipeline %q cannot be renamed to %q", p.Name, name)
	}
	if err != nil {
		return err
	}
	r.Pipeline.Mirror, r.Pipeline.Query = e.Mirror, e.Query
	r.Pipeline.Version++
	c.pipelines[e.ID] = r
	return nil
}

func (c *catalog) setDesired(e SetDesired) *errs.Error {
	r, err := c.find(e.ID)
	if err != nil {
		return err
	}
	switch e.Desired {
	case api.WantRunning, api.WantPaused:
		if r.Pipeline.Desired == api.WantDeleted {
			return errs.New(errs.PipelineState, "pipeline %q is being deleted", r.Pipeline.Name).
				WithHint("create it again when it is gone")
		}
	case api.WantDeleted:
		r.Force = r.Force || e.Force
	default:
		return errs.New(errs.PipelineState, "a pipeline cannot be %q", e.Desired)
	}
	r.Pipeline.Desired = e.Desired
	c.pipelines[e.ID] = r
	return nil
}

// newGeneration is refused for a paused pipeline, so that a start that was decided before the pause cannot begin after
// it. A delete has a generation too: it fences workers that do not know of it yet.
func (c *catalog) newGeneration(e NewGeneration) (any, *errs.Error) {
	r, err := c.find(e.ID)
	if err != nil {
		return nil, err
	}
	if r.Pipeline.Desired == api.WantPaused {
		return nil, errs.New(errs.PipelineState, "pipeline %q is paused", r.Pipeline.Name)
	}
	r.Pipeline.Generation++
	c.pipelines[e.ID] = r
	return r.Pipeline.Generation, nil
}

// current refuses everything that does not come from the newest generation.
func (c *catalog) current(id string, generation uint64) (pipelineRecord, *errs.Error) {
	r, err := c.find(id)
	if err != nil {
		return r, err
	}
	if generation != r.Pipeline.Generation {
		return r, errs.New(errs.Fenced, "pipeline %q has a newer owner", r.Pipeline.Name).
			WithDetail("generation %d acted, the current one is %d", generation, r.Pipeline.Generation)
	}
	return r, nil
}

func (c *catalog) schemaStep(e SchemaStep) *errs.Error {
	r, err := c.current(e.ID, e.Generation)
	if err != nil {
		return err
	}
	if e.N != r.Steps+1 {
		return errs.New(errs.PipelineState, "schema step %d of pipeline %q is out of turn", e.N, r.Pipeline.Name).
			WithDetail("the next one is %d", r.Steps+1)
	}
	r.Steps = e.N
	from := max(0, len(r.StepLog)+1-keptSteps)
	log := append([]recordedStep(nil), r.StepLog[from:]...)
	r.StepLog = append(log, recordedStep{N: e.N, Generation: e.Generation, Step: e.Step})
	c.pipelines[e.ID] = r
	return nil
}

func (c *catalog) checkpoint(e Checkpoint) *errs.Error {
	r, err := c.current(e.ID, e.Generation)
	if err != nil {
		return err
	}
	if e.Checkpoint <= r.Checkpoint {
		return errs.New(errs.PipelineState, "checkpoint %d of pipeline %q is not above the last", e.Checkpoint, r.Pipeline.Name).
			WithDetail("checkpoint %d was accepted with digest %s", r.Checkpoint, r.Digest)
	}
	positions, err := advance(r.Positions, e.Positions)
	if err != nil {
		return err
	}
	r.Checkpoint, r.Digest, r.Bytes, r.Positions = e.Checkpoint, e.Digest, e.Bytes, positions
	c.pipelines[e.ID] = r
	return nil
}

// advance merges the positions of a checkpoint into the last ones. Another incarnation of a source (a new timeline, a
// recreated topic) begins its own count; whether it may follow the old one is the source's to decide, before it reads.
func advance(last, next []Position) ([]Position, *errs.Error) {
	merged := append([]Position(nil), last...)
	for _, p := range next {
		i := sort.Search(len(merged), func(i int) bool { return merged[i].Source >= p.Source })
		if i == len(merged) || merged[i].Source != p.Source {
			merged = append(merged, Position{})
			copy(merged[i+1:], merged[i:])
		} else if old := merged[i]; old.Incarnation == p.Incarnation && p.Position < old.Position {
			return nil, errs.New(errs.EngineInternal, "the position of source %q would fall from %d to %d", p.Source, old.Position, p.Position)
		}
		merged[i] = p
	}
	return merged, nil
}

func (c *catalog) finishDelete(e FinishDelete) *errs.Error {
	r, err := c.current(e.ID, e.Generation)
	if err != nil {
		return err
	}
	if r.Pipeline.Desired != api.WantDeleted {
		return errs.New(errs.PipelineState, "pipeline %q is not being deleted", r.Pipeline.Name)
	}
	delete(c.pipelines, e.ID)
	delete(c.names, r.Pipeline.Name)
	return nil
}

// list gives the pipelines in order of name.
func (c *catalog) list() []pipelineRecord {
	out := make([]pipelineRecord, 0, len(c.pipelines))
	for _, r := range c.pipelines {
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Pipeline.Name < out[j].Pipeline.Name })
	return out
}
