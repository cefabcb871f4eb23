package query

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/weirstream/weir/coordinator"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/raft"
)

// Manifests is where checkpoints are committed: the replicated catalog.
type Manifests interface {
	RecordCheckpoint(ctx context.Context, c coordinator.Checkpoint) error
	LastCheckpoint(ctx context.Context, pipeline string) (coordinator.Checkpoint, error)
}

// Crash points of a checkpoint, beside those of the disk.
const (
	FailPrepared  failpoint.Point = "query.prepared"  // it is in the log, and not proposed
	FailCommitted failpoint.Point = "query.committed" // the catalog has it, and nobody here has heard of it
	FailPublished failpoint.Point = "query.published" // the sinks have it, and it is not noted
)

// durable keeps a pipeline's checkpoints: the delta log holds them, and the catalog's manifest decides which count. It is
// made for one start of a pipeline and its generation.
type durable struct {
	env        *env.Env
	pipeline   *disk.Pipeline
	manifests  Manifests
	id         string
	generation dataflow.Generation
	restored   disk.Restored
}

// recover brings the tables to the checkpoint that the catalog names.
func recoverState(ctx context.Context, e *env.Env, p *disk.Pipeline, m Manifests, id string, generation dataflow.Generation) (*durable, error) {
	last, err := m.LastCheckpoint(ctx, id)
	if err != nil {
		return nil, err
	}
	if last.Generation != uint64(generation) {
		return nil, errs.New(errs.Fenced, "the pipeline has a newer owner").
			WithDetail("generation %d starts, the current one is %d", generation, last.Generation)
	}
	restored, err := p.Recover(last.Checkpoint)
	if err != nil {
		return nil, err
	}
	if last.Checkpoint > 0 && (digest(restored.Frame) != last.Digest || restored.Bytes != last.Bytes) {
		return nil, errs.New(errs.StateLogDamaged, "checkpoint %d in the state directory is not the one that was committed", last.Checkpoint).
			WithDetail("it has digest %s and %d bytes; the catalog names %s and %d", digest(restored.Frame), restored.Bytes, last.Digest, last.Bytes).
			WithHint("put the state directory back as a whole: the folders raft and engine belong together")
	}
	return &durable{env: e, pipeline: p, manifests: m, id: id, generation: generation, restored: restored}, nil
}

func digest(f disk.Frame) string { return hex.EncodeToString(f.Digest[:]) }

// Restored is part of keyed.Durable.
func (d *durable) Restored() (dataflow.Checkpoint, []byte) {
	return dataflow.Checkpoint(d.restored.Checkpoint), d.restored.Meta
}

// Backing is part of keyed.Durable.
func (d *durable) Backing() state.Backing { return d.pipeline.Backing() }

// Absorbed is part of keyed.Durable.
func (d *durable) Absorbed() uint64 { return d.pipeline.Absorbed() }

// Commit is part of keyed.Durable. The manifest is the commit point: what lies in the log before it is accepted is
// nothing, and what follows cannot take it back.
func (d *durable) Commit(ctx context.Context, c dataflow.Checkpoint, deltas []*state.Delta, outbox, meta []byte) error {
	f, err := d.pipeline.Prepare(ctx, uint64(c), deltas, outbox, meta)
	if err == nil {
		err = d.hit(FailPrepared)
	}
	if err != nil {
		return err
	}
	err = d.manifests.RecordCheckpoint(ctx, coordinator.Checkpoint{
		ID: d.id, Generation: uint64(d.generation), Checkpoint: uint64(c), Digest: digest(f), Bytes: f.Bytes,
	})
	switch {
	case errors.Is(err, raft.ErrUnknown):
		return err // the next start asks what became of it
	case err != nil:
		d.pipeline.Abort(uint64(c))
		return err
	}
	if err := d.hit(FailCommitted); err != nil {
		return err
	}
	d.pipeline.Commit(uint64(c))
	return nil
}

// hit is a place where a test may want a crash.
func (d *durable) hit(p failpoint.Point) error {
	err := d.env.Fail.Hit(p)
	if errors.Is(err, failpoint.ErrKill) {
		d.env.Crash(err)
	}
	return err
}

// Forget is part of keyed.Forgetter.
func (d *durable) Forget(keep func(name string) bool) (int, error) { return d.pipeline.Forget(keep) }

// Unpublished is part of keyed.Durable.
func (d *durable) Unpublished() []dataflow.Checkpoint {
	var out []dataflow.Checkpoint
	for _, c := range d.restored.Outboxes {
		out = append(out, dataflow.Checkpoint(c))
	}
	return out
}

// Outbox is part of keyed.Durable.
func (d *durable) Outbox(c dataflow.Checkpoint) ([]byte, error) { return d.pipeline.Outbox(uint64(c)) }

// Published is part of keyed.Durable.
func (d *durable) Published(c dataflow.Checkpoint) {
	if d.hit(FailPublished) == nil {
		d.pipeline.Published(uint64(c))
	}
}
