package mirror

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/worker"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// rate turns totals into a rate over the last few seconds.
type rate struct {
	samples []sample
}

type sample struct {
	at          time.Time
	rows, bytes int64
}

func (r *rate) add(now time.Time, rows, bytes int64) (rowsPerSec, bytesPerSec float64) {
	if n := len(r.samples); n == 0 || now.Sub(r.samples[n-1].at) >= 200*time.Millisecond {
		r.samples = append(r.samples, sample{now, rows, bytes})
	}
	for len(r.samples) > 2 && now.Sub(r.samples[0].at) > 5*time.Second {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	d := now.Sub(first.at).Seconds()
	if d < 0.1 {
		return 0, 0
	}
	return float64(rows-first.rows) / d, float64(bytes-first.bytes) / d
}

// pace is a table's rate. There may be thousands, so that each keeps only the last look and a mean that forgets.
type pace struct {
	sample
	copying            bool
	rowRate, bytesRate float64
}

// add takes the table's totals and gives its rates, in rows and bytes a second. Those of the copy and those of the stream
// are counted apart.
func (p *pace) add(now time.Time, copying bool, rows, bytes int64) (rowsPerSec, bytesPerSec float64) {
	d := now.Sub(p.at).Seconds()
	switch {
	case p.at.IsZero() || copying != p.copying || rows < p.rows:
		*p = pace{sample: sample{now, rows, bytes}, copying: copying}
	case d >= 0.5:
		keep := math.Exp(-d / 3)
		if p.rowRate == 0 && p.bytesRate == 0 {
			keep = 0
		}
		p.rowRate = keep*p.rowRate + (1-keep)*float64(rows-p.rows)/d
		p.bytesRate = keep*p.bytesRate + (1-keep)*float64(bytes-p.bytes)/d
		if p.sample = (sample{now, rows, bytes}); p.rowRate < 0.05 {
			p.rowRate, p.bytesRate = 0, 0
		}
	}
	return p.rowRate, p.bytesRate
}

// A mirror is live when less than behind of the source's log is not visible at the target, and stays live up to farBehind.
const (
	behind    = 1 << 20
	farBehind = 16 << 20
)

// Status implements coordinator.Running.
func (r *running) Status() api.PipelineStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.env.Clock.Now()
	st := api.PipelineStatus{Phase: api.PhasePrepare, Since: r.since, LagBytes: -1, LagMS: -1, UpdatedAt: now}
	if r.pipe == nil {
		return st
	}
	s := r.pipe.Status()
	st.Since, st.Lanes, st.Building, st.CatalogAt = s.Since, r.opts.Int("sink.lanes"), r.building.Load(), r.source.Looked()
	st.Checkpoint, st.Durable, st.RowsTotal = uint64(s.Checkpoint), uint64(s.Durable), s.Rows
	if s.Phase != r.ratePhase {
		r.rate, r.ratePhase = rate{}, s.Phase // the copy's pace tells nothing of the stream's
	}
	st.RowsPerSec, st.BytesPerSec = r.rate.add(now, s.Rows, s.Bytes)
	switch s.Phase {
	case worker.PhaseCopy:
		st.Phase = api.PhaseCopy
	case worker.PhaseCatchUp:
		st.Phase = api.PhaseCatchUp
		if pos, err := pg.ParseLSN(string(s.Visible["position"])); err == nil {
			st.Position = pos.String()
			if pos, err := pg.ParseLSN(string(s.Stored["position"])); err == nil {
				st.DurablePosition = r.source.Reached(pos).String()
			}
			st.LagBytes = r.source.Lag(pos)
			st.LagMS = 0
			switch {
			case st.LagBytes < 0, s.LastCommit.IsZero() && (s.Written.After(s.LastCommit) || st.LagBytes >= behind):
				st.LagMS = -1 // nothing with a time of the source's is visible yet
			case s.Written.After(s.LastCommit), st.LagBytes >= behind:
				st.LagMS = max(now.Sub(s.LastCommit).Milliseconds(), 0)
			}
			if st.LagMS >= 0 {
				st.LagMS = max(st.LagMS, r.source.Silence(now).Milliseconds())
			}
			// Under load a little is always under way, so what is live is behind only when much is.
			if r.live = st.LagBytes >= 0 && (st.LagBytes < behind || r.live && st.LagBytes < farBehind); r.live {
				st.Phase = api.PhaseLive
			}
		}
	}
	st.Tables = r.tables(now, st.Phase)
	return st
}

func (r *running) tables(now time.Time, phase api.Phase) []api.TableStatus {
	if r.source == nil {
		return nil
	}
	counts := r.memory.sink.Counts()
	if r.paces == nil || len(r.paces) > 2*len(counts)+1000 { // names that are gone
		r.paces = map[string]*pace{}
	}
	var out []api.TableStatus
	for _, t := range r.source.Tables() {
		ts, tn := r.sel.Route(t.Schema, t.Name)
		row := api.TableStatus{
			Source: pg.DottedName(t.Schema, t.Name), Target: pg.DottedName(ts, tn), Phase: api.PhasePrepare,
			Rows: t.Rows, RowsTotal: t.EstRows, Bytes: t.Bytes, BytesTotal: t.EstBytes, ETASeconds: -1,
		}
		c := counts[ts+"."+tn]
		row.Inserts, row.Updates, row.Deletes, row.Missing = c.Inserts, c.Updates, c.Deletes, c.Missing
		switch {
		case t.Copying:
			row.Phase = api.PhaseCopy
		case t.Done && (phase == api.PhaseLive || phase == api.PhaseCatchUp):
			row.Phase = phase
		case t.Done:
			row.Phase = api.PhaseCatchUp
		}
		p := r.paces[row.Source]
		if p == nil {
			p = &pace{}
			r.paces[row.Source] = p
		}
		if !t.Copying {
			row.RowsPerSec, _ = p.add(now, false, c.Inserts+c.Updates+c.Deletes, 0)
		} else {
			var bytesPerSec float64
			row.RowsPerSec, bytesPerSec = p.add(now, true, t.Rows, t.Bytes)
			switch { // both totals are estimates; that of the rows does not count what a table's pages waste
			case t.EstRows > 0 && row.RowsPerSec > 0:
				row.ETASeconds = max(int64(float64(t.EstRows-t.Rows)/row.RowsPerSec), 0)
			case t.EstBytes > 0 && bytesPerSec > 0:
				row.ETASeconds = max(int64(float64(t.EstBytes-t.Bytes)/bytesPerSec), 0)
			}
		}
		out = append(out, row)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Source < out[j].Source })
	return out
}

// Source implements coordinator.Running: what the source's server says of our slot.
func (r *running) Source(ctx context.Context) (api.SourceStatus, error) {
	st, err := r.runner.probe(ctx, r.pipeline, r.sourceCfg)
	st.LagMS = r.Status().LagMS
	return st, err
}

// ProbeSource implements coordinator.SourceProber.
func (r *Runner) ProbeSource(ctx context.Context, p api.Pipeline) (api.SourceStatus, error) {
	source, err := r.config(p.Mirror.Source)
	if err != nil {
		return api.SourceStatus{}, err
	}
	return r.probe(ctx, p, source)
}

// probe asks the source's server, not the pipeline, so that it also answers for one that does not run.
func (r *Runner) probe(ctx context.Context, p api.Pipeline, source *pg.Config) (api.SourceStatus, error) {
	slot, publication, _ := r.Names(p, source)
	st := api.SourceStatus{Name: source.Database(), Pipeline: p.Name, Server: source.Server(),
		Slot: slot, Publication: publication, LagMS: -1, LagBytes: -1, WALLimitBytes: -1, UpdatedAt: r.env.Clock.Now()}
	conn, err := pg.ConnectPgx(ctx, r.env, source, pg.ConnectOptions{AppName: "weir status"})
	if err != nil {
		return st, errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", source.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	version, text, err := pg.ServerVersion(ctx, conn)
	if err != nil {
		return st, err
	}
	st.ServerVersion = text
	status, limit := "'reserved'", "-1"
	if version >= 130000 {
		status = "coalesce(wal_status, 'reserved')"
		limit = "(SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')"
	}
	current := "pg_current_wal_lsn()"
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return st, err
	}
	if standby {
		current = "pg_last_wal_replay_lsn()"
	}
	look := func(slot string) error {
		return conn.QueryRow(ctx, `SELECT active, `+status+`, coalesce(confirmed_flush_lsn::text, ''), `+current+`::text,
			coalesce(pg_wal_lsn_diff(`+current+`, restart_lsn), 0)::int8, coalesce(pg_wal_lsn_diff(`+current+`, confirmed_flush_lsn), 0)::int8, `+limit+`
			FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()`, slot).
			Scan(&st.SlotActive, &st.SlotState, &st.ConfirmedLSN, &st.CurrentLSN, &st.WALRetainedBytes, &st.LagBytes, &st.WALLimitBytes)
	}
	st.SharedWith, st.RingBytes = r.hubs.Sharing(slot)
	if len(st.SharedWith) > 0 {
		// Its own slot may still be there for a moment.
		st.Slot = SlotName(source.Database(), r.opts.Installation)
	}
	err = look(st.Slot)
	if errors.Is(err, pgx.ErrNoRows) && st.Slot == slot && p.Mirror.Options["slot.name"] == "" {
		// It shared until its process ended: the shared slot keeps its log.
		if err = look(SlotName(source.Database(), r.opts.Installation)); err == nil {
			st.Slot = SlotName(source.Database(), r.opts.Installation)
		}
	}
	if errors.Is(err, pgx.ErrNoRows) {
		st.SlotState = "missing"
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("read slot %q: %w", st.Slot, err)
	}
	if st.WALLimitBytes > 0 {
		st.WALLimitBytes <<= 20 // the setting is in megabytes
	}
	return st, nil
}
