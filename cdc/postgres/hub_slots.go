package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/failpoint"
	"github.com/weirstream/weir/internal/pg"
)

// The slots of those who share: made, copied back and dropped in the order that DESIGN.md argues for.

// conn is the connection for what concerns slots.
func (h *Hub) conn(ctx context.Context) (*pgx.Conn, *pg.Config, error) {
	h.mu.Lock()
	var cfg *pg.Config
	for _, set := range []map[*member]bool{h.mu.members, h.mu.leaving} {
		for m := range set {
			cfg = m.config
		}
	}
	h.mu.Unlock()
	if h.ctl != nil && !h.ctl.IsClosed() {
		if cfg == nil {
			cfg = h.ctlConfig
		}
		return h.ctl, cfg, nil
	}
	if cfg == nil {
		return nil, nil, errors.New("nobody is left")
	}
	conn, err := pg.ConnectPgx(ctx, h.env, cfg, pg.ConnectOptions{AppName: appName + " share"})
	if err != nil {
		return nil, nil, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", cfg.Server(), err).Because(err)
	}
	identity, err := pg.SystemIdentity(ctx, conn)
	if err == nil && (identity.System != h.identity.System || identity.Database != h.identity.Database) {
		err = errs.New(errs.SourceReplaced, "source %s is another server than the one whose slot is shared", cfg.Server())
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, nil, err
	}
	h.ctl, h.ctlConfig = conn, cfg
	return conn, cfg, nil
}

// letGo makes the own slots of those who leave, and only then stops counting them.
func (h *Hub) letGo(ctx context.Context) {
	h.mu.Lock()
	leaving := slices.Collect(maps.Keys(h.mu.leaving))
	leaving = slices.DeleteFunc(leaving, func(m *member) bool { return m.dropping })
	h.mu.Unlock()
	now := h.env.Clock.Now()
	for _, m := range leaving {
		select {
		case <-m.failed:
			if now.Before(h.tryAgain) {
				continue
			}
		default:
		}
		if err := h.part(ctx, m); err != nil {
			h.tryAgain = now.Add(time.Second)
			h.mu.Lock()
			m.err = err
			select {
			case <-m.failed:
			default:
				h.env.Log.Warn("a pipeline's own slot cannot be made; the shared one keeps its log", "pipeline", m.pipeline, "error", err)
				close(m.failed)
			}
			h.mu.Unlock()
			if h.ctl != nil {
				_ = h.ctl.Close(context.Background())
				h.ctl = nil
			}
			return
		}
	}
}

func (h *Hub) part(ctx context.Context, m *member) error {
	ctx, cancel := context.WithTimeout(ctx, hubLimit)
	defer cancel()
	conn, _, err := h.conn(ctx)
	if err != nil {
		return err
	}
	if h.env.Fail.Hit(FailShareLeave) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	if err := copySlot(ctx, conn, h.slot, m.slot); err != nil {
		return err
	}
	if h.env.Fail.Hit(FailShareLeft) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.mu.leaving[m] {
		return nil
	}
	delete(h.mu.leaving, m)
	h.mu.roster.uncount(m.slot)
	h.confirm()
	close(m.left)
	return nil
}

// found makes the shared slot when two that can share are level.
func (h *Hub) found(ctx context.Context) error {
	group, level := h.level()
	if len(level) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, hubLimit)
	defer cancel()
	conn, _, err := h.conn(ctx)
	if err != nil {
		return err
	}
	identity, err := pg.SystemIdentity(ctx, conn)
	if err != nil {
		return err
	}
	var at pg.LSN
	near := 0
	for _, m := range level {
		p := pg.LSN(m.position.Load())
		if p+levelBytes >= identity.Flushed {
			near++
		}
		at = max(at, p, m.entered)
	}
	if near < 2 {
		return nil
	}
	if shared, err := slotNamed(ctx, conn, h.slot); err != nil {
		return err
	} else if shared != nil {
		h.mu.Lock()
		h.mu.leftover = true
		h.mu.Unlock()
		return nil
	}
	if h.env.Fail.Hit(FailShareMake) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	if err := copySlot(ctx, conn, level[0].slot, h.slot); err != nil {
		return err
	}
	h.mu.Lock()
	h.mu.leftover = true // until it is read
	h.mu.Unlock()
	if h.env.Fail.Hit(FailShareMade) != nil {
		h.env.Crash(failpoint.ErrKill)
	}
	shared, err := slotNamed(ctx, conn, h.slot)
	if err != nil {
		return err
	}
	if shared == nil {
		return errs.New(errs.SlotLost, "slot %q is gone as soon as it was made", h.slot)
	}
	bytes := 0
	for _, m := range level {
		bytes = max(bytes, m.ringBytes)
	}
	protocol := 1
	if strings.Contains(group, "proto_version '2'") {
		protocol = 2
	}
	h.mu.Lock()
	h.mu.ring = newRing(bytes, protocol)
	h.mu.ring.trace.at = at
	h.mu.roster = roster{counted: map[string]pg.LSN{}, confirmed: shared.confirmed}
	h.mu.spans = nil
	names := h.names(group)
	h.mu.Unlock()
	h.lonely, h.lastTurn = time.Time{}, h.env.Clock.Now()
	if err := h.begin(ctx, group, at, names); err != nil {
		return err
	}
	h.mu.Lock()
	h.mu.leftover = false
	h.mu.Unlock()
	return nil
}

// retire drops a shared slot that nobody reads, after it was copied for everybody who has no slot and needs one.
func (h *Hub) retire(ctx context.Context, conn *pgx.Conn, source *pg.Config) error {
	shared, err := slotNamed(ctx, conn, h.slot)
	if err != nil {
		return err
	}
	if shared != nil && shared.database == h.identity.Database && shared.plugin == "pgoutput" {
		peers, err := h.hubs.peers(ctx, source, h.identity)
		if err != nil {
			return err
		}
		for _, p := range peers {
			own, err := slotNamed(ctx, conn, p.Slot)
			if err != nil {
				return err
			}
			if own != nil || !p.Stands(ctx) {
				continue
			}
			if err := copySlot(ctx, conn, h.slot, p.Slot); err != nil {
				return err
			}
		}
		if h.env.Fail.Hit(FailShareRetire) != nil {
			h.env.Crash(failpoint.ErrKill)
		}
		if err := Drop(ctx, conn, h.slot, ""); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.mu.leftover = false
	h.mu.roster = roster{counted: map[string]pg.LSN{}}
	h.mu.Unlock()
	return nil
}

// slotNamed looks a slot up; nil: there is none.
func slotNamed(ctx context.Context, conn *pgx.Conn, name string) (*slotInfo, error) {
	var info slotInfo
	var confirmed string
	err := conn.QueryRow(ctx, `SELECT coalesce(plugin::text, ''), coalesce(database::text, ''), coalesce(confirmed_flush_lsn, '0/0')::text
		FROM pg_replication_slots WHERE slot_name = $1`, name).Scan(&info.plugin, &info.database, &confirmed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up slot %q: %w", name, err)
	}
	info.confirmed, err = pg.ParseLSN(confirmed)
	return &info, err
}

// copySlot makes a slot that stands where another stands. One that is there already is as good, unless the server gave
// it up: nobody has confirmed more to it than its own pipeline did.
func copySlot(ctx context.Context, conn *pgx.Conn, from, to string) error {
	for range 2 {
		_, err := conn.Exec(ctx, `SELECT pg_copy_logical_replication_slot($1::name, $2::name)`, from, to)
		var e *pgconn.PgError
		if err == nil {
			return nil
		}
		if !errors.As(err, &e) || e.Code != "42710" {
			return errs.New(errs.SourceStream, "copy slot %q to %q: %w", from, to, err).Because(err)
		}
		var lost bool
		err = conn.QueryRow(ctx, `SELECT coalesce(to_jsonb(s) ->> 'wal_status', '') = 'lost' FROM pg_replication_slots s WHERE slot_name = $1`, to).Scan(&lost)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("look up slot %q: %w", to, err)
		}
		if err == nil && !lost {
			return nil
		}
		if err := Drop(ctx, conn, to, ""); err != nil {
			return err
		}
	}
	return errs.New(errs.SlotInUse, "slot %q comes and goes", to)
}
