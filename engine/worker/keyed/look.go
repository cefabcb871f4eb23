package keyed

import (
	"context"
	"slices"

	"github.com/weirstream/weir/engine/row"
)

// Entry is what a state of a node has for a key.
type Entry struct {
	State  string // its name
	Bytes  []byte // a binary row, or a value
	Weight int64  // of a row; 0: it is a value
}

// Look gives what the states of a node have for a key, as of now: between two batches, whatever is visible. key makes the
// key as state.Store.Look wants it; it is called by the tasks.
func (p *Pipeline) Look(ctx context.Context, node int, key func(c *row.KeyCodec) *row.Batch) ([]Entry, error) {
	select {
	case <-p.built:
	case <-p.over:
		return nil, p.notRunning()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var out []Entry
	tasks := p.tasks[p.of[node].number]
	n := uint64(len(tasks))
	for i, t := range tasks {
		r := &read{done: make(chan struct{}), call: func() error {
			return t.store.Look(p.opts.Graph.Nodes[node].ID, key, func(hash uint64) bool { return (hash>>48)*n>>16 == uint64(i) },
				func(state string, b []byte, w int64) { out = append(out, Entry{state, slices.Clone(b), w}) })
		}}
		pin := &Pin{p: p}
		if err := pin.ask(ctx, t, r); err != nil {
			return nil, err
		}
		if err := pin.wait(ctx, r); err != nil {
			return nil, err
		}
	}
	return out, nil
}
