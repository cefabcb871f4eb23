package keyed

import "time"

// settled is which epoch readers get while the newest one has transactions of a Follower that are not durable yet. A crash
// would take them back for good, since nobody has promised them to anybody, and who had read them would see less after it
// than before. So the driver pins each epoch until it is known whether the next one has such transactions, and each
// checkpoint until it is known whether it is durable. Rows of all other sources come again after a crash, so for them the newest epoch is as good.
type settled struct {
	base      uint64 // the epoch that readers get; 0: the newest
	next      uint64 // the checkpoint that is being made durable, if base is set
	unsettled uint64 // the newest epoch with transactions that are not durable
}

// readable is another user of the epoch that readers get, nil if it is not held. Visible is the newest.
func (p *pins) readable(visible uint64) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.base != 0 {
		visible = p.mu.base
	}
	h := p.mu.held[visible]
	if h != nil {
		h.users++
	}
	return h
}

// after is called when every task has passed an epoch, with the pin of the one before it, which is let go of if readers do
// not need it. Changed: the epoch has transactions of a Follower; check: it is a checkpoint.
func (p *pins) after(before *held, epoch uint64, changed, check bool, now time.Time) {
	p.mu.Lock()
	if changed {
		p.mu.unsettled = epoch
		if p.mu.base == 0 {
			p.mu.base, before = before.epoch, nil
		}
	}
	check = check && p.mu.base != 0
	if check {
		p.mu.next = epoch
	}
	p.mu.Unlock()
	if before != nil {
		p.release(before)
	}
	if check {
		p.hold(epoch, now)
	}
}

// durable is called when a checkpoint is.
func (p *pins) durable(epoch uint64) {
	p.mu.Lock()
	var over []*held
	if p.mu.next == epoch && p.mu.base != 0 {
		over = append(over, p.mu.held[p.mu.base])
		p.mu.base, p.mu.next = epoch, 0
		if p.mu.unsettled <= epoch {
			over = append(over, p.mu.held[epoch])
			p.mu.base = 0
		}
	}
	p.mu.Unlock()
	for _, h := range over {
		p.release(h)
	}
}
