package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/weirstream/weir/test/bench/internal/lab"
)

// A Peer is the built-in logical replication of Postgres with its default settings: CREATE PUBLICATION at the source,
// tables made by hand and CREATE SUBSCRIPTION at the target.
type Peer struct {
	pair      *lab.Pair
	streaming bool
	target    *lab.Session
	started   time.Time // of its apply worker
}

// NewPeer returns a peer; streaming lets it receive large transactions before they commit.
func NewPeer(pair *lab.Pair, streaming bool) *Peer { return &Peer{pair: pair, streaming: streaming} }

// Prepare implements Replica. The peer's tables get their primary keys here, off the clock, because a subscription needs
// tables to copy into.
func (p *Peer) Prepare(ctx context.Context, tables []lab.Table) (err error) {
	source, err := p.pair.ConnectSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := source.Exec(ctx, "CREATE PUBLICATION bench FOR ALL TABLES"); err != nil {
		return err
	}
	if p.target, err = p.pair.ConnectTarget(ctx); err != nil {
		return err
	}
	return p.target.CreateTables(ctx, tables)
}

// Start implements Replica.
func (p *Peer) Start(ctx context.Context) error {
	with := ""
	if p.streaming {
		with = " WITH (streaming = on)"
	}
	err := p.target.Exec(ctx, fmt.Sprintf(
		"CREATE SUBSCRIPTION bench CONNECTION 'host=127.0.0.1 port=%d dbname=%s user=postgres' PUBLICATION bench%s",
		p.pair.Source.Port, lab.SourceDB, with))
	p.started = time.Now()
	return err
}

// Following implements Replica.
func (p *Peer) Following(ctx context.Context) (bool, error) {
	// The state r of a table: synchronized, and changes are applied.
	behind, err := p.target.Int(ctx, "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'")
	return behind == 0, err
}

// Pause implements Replica. The launcher of apply workers takes a start soon after another for the retry of a worker
// that crashed and lets it wait for wal_retrieve_retry_interval (ApplyLauncherMain in
// src/backend/replication/logical/launcher.c). That wait would be most of a short drain and says nothing about applying,
// so it is passed here, off the clock.
func (p *Peer) Pause(ctx context.Context) error {
	if err := p.target.Exec(ctx, "ALTER SUBSCRIPTION bench DISABLE"); err != nil {
		return err
	}
	intervalMS, err := p.target.Int(ctx, "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_retrieve_retry_interval'")
	if err != nil {
		return err
	}
	// The launcher is woken by the commit of CREATE SUBSCRIPTION and has started its worker a second later.
	free := p.started.Add(time.Duration(intervalMS)*time.Millisecond + time.Second)
	err = lab.Poll(ctx, 20*time.Millisecond, func() (bool, error) { return time.Now().After(free), nil })
	if err != nil {
		return err
	}
	return p.pair.Detached(ctx)
}

// Resume implements Replica.
func (p *Peer) Resume(ctx context.Context) error {
	return p.target.Exec(ctx, "ALTER SUBSCRIPTION bench ENABLE")
}

// Check implements Replica. An apply worker that fails is started again and again; the limit of every wait ends that,
// and the log tells why.
func (p *Peer) Check(context.Context) error { return nil }

// PID implements Replica: the peer works inside the two servers.
func (p *Peer) PID() int { return 0 }

// Stop implements Replica.
func (p *Peer) Stop(ctx context.Context) (int64, error) {
	if p.target == nil {
		return 0, nil
	}
	defer p.target.Close()
	there, err := p.target.Int(ctx, "SELECT count(*) FROM pg_subscription WHERE subname = 'bench'")
	if err != nil || there == 0 {
		return 0, err
	}
	return 0, p.target.Exec(ctx, "DROP SUBSCRIPTION bench")
}

// Log implements Replica.
func (p *Peer) Log() string { return p.pair.Target.LogTail(15) }
