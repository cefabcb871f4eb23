package keyed

import "context"

// shut keeps rows of all sources from coming in until open is called. Without it those that come while the driver waits
// would be one epoch, as long as the wait. Only the driver shuts, and cuts nothing meanwhile.
func (p *Pipeline) shut() (open func()) {
	opened := make(chan struct{})
	p.gate.Store(&opened)
	return func() {
		p.gate.Store(nil)
		close(opened)
	}
}

// enter waits until rows may come in.
func (p *Pipeline) enter(ctx context.Context) error {
	opened := p.gate.Load()
	if opened == nil {
		return nil
	}
	select {
	case <-*opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
