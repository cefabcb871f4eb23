package keyed

import (
	"context"

	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Follow gives the rows that a view has to f, and then what each epoch changes in it, as soon as it can be read: rows that
// go, with weights below 0, before those that come. Batches are lent for the call and are of one epoch; with last the
// epoch has no more. It returns when ctx ends, the pipeline does, f has an error, or f is so slow that changes are lost.
func (p *Pipeline) Follow(ctx context.Context, node int, f func(epoch uint64, b *row.Batch, last bool) error) error {
	select {
	case <-p.built:
	case <-p.over:
		return p.notRunning()
	case <-ctx.Done():
		return ctx.Err()
	}
	tap := operator.NewTap(p.opts.FollowBytes)
	var view *operator.View
	for _, t := range p.tasks[p.of[node].number] {
		view = t.operators[node].(*operator.View)
		defer view.AddTap(tap)()
	}
	// The tap is there before the epoch that is read, so it has every change behind that one.
	pin, err := p.Pin(ctx)
	if err != nil {
		return err
	}
	at := pin.Epoch()
	err = pin.Read(ctx, node, nil, func(b *row.Batch) error { return f(at, b, false) })
	pin.Release()
	if err != nil {
		return err
	}
	out, codec := row.NewBuilder(view.Types()), row.NewCodec(view.Types())
	out.Reset()
	if err := f(at, out.Seal(), true); err != nil {
		return err
	}
	var one [1][]byte
	for {
		epoch, err := p.visible(ctx, at)
		if err != nil {
			return err
		}
		changes, ok := tap.Take(epoch)
		if !ok {
			return errs.New(errs.SnapshotTooOld, "the changes came faster than they were taken, and some are lost").WithHint("begin again")
		}
		out.Reset()
		for i, c := range changes {
			if c.Epoch > at {
				one[0] = c.Row
				for col := range out.Cols {
					codec.Decode(out.Cols[col], out.Len, col, one[:])
				}
				out.EndRow(c.Weight)
			}
			last := i+1 == len(changes) || changes[i+1].Epoch != c.Epoch
			if out.Len > 0 && (last || out.Len == row.MaxBatch) {
				if err := f(c.Epoch, out.Seal(), last); err != nil {
					return err
				}
				out.Reset()
			}
		}
		at = epoch
	}
}

// visible waits for an epoch behind one to be visible.
func (p *Pipeline) visible(ctx context.Context, behind uint64) (uint64, error) {
	for {
		p.mu.Lock()
		now := p.mu.status.Epoch
		if now > behind {
			p.mu.Unlock()
			return now, nil
		}
		w := make(chan struct{})
		p.mu.waiting = append(p.mu.waiting, w)
		p.mu.Unlock()
		select {
		case <-w:
		case <-p.over:
			return 0, p.notRunning()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
