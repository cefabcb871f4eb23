package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// A promoted standby, or a server restored to a point in time, begins a new timeline: the log up to the switch is shared,
// what the old timeline has behind it is not. Whoever read past the switch holds rows that the present server never had,
// and a slot of the same name would not show it. So the walsender that is to be read from is asked which timeline it is
// on, before anything of its log is taken, and where the timeline we know ended on the way there.

// timelineSwitch is a line of a timeline's history: an ancestor and where it was left.
type timelineSwitch struct {
	timeline uint32
	end      pg.LSN
}

// parseHistory reads a history file, whose lines are "timeline TAB LSN TAB reason". Oldest first.
func parseHistory(content []byte) ([]timelineSwitch, error) {
	var out []timelineSwitch
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("history line %q has no position", line)
		}
		timeline, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("history line %q: %w", line, err)
		}
		end, err := pg.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("history line %q: %w", line, err)
		}
		if len(out) > 0 && uint32(timeline) <= out[len(out)-1].timeline {
			return nil, fmt.Errorf("history line %q does not rise", line)
		}
		out = append(out, timelineSwitch{uint32(timeline), end})
	}
	return out, nil
}

// sharedUntil is how far the log of a timeline belongs to a history. False: none of it does.
func sharedUntil(history []timelineSwitch, timeline uint32) (pg.LSN, bool) {
	for i, h := range history {
		if h.timeline == timeline {
			end := h.end
			for _, later := range history[i+1:] {
				end = min(end, later.end)
			}
			return end, true
		}
	}
	return 0, false
}

// parseSystem reads what is stored of a server.
func parseSystem(stored string) (system string, timeline uint32, err error) {
	system, text, _ := strings.Cut(stored, "/")
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return "", 0, errs.New(errs.StateCorrupt, "stored server %q: %w", stored, err).Because(err)
	}
	return system, uint32(n), nil
}

// know takes what is stored of the server, and refuses another one at once. The timeline is left to admit: over SQL it may
// still be the old one after a promotion.
func (s *Source) know(stored string) error {
	s.timeline.Store(uint32(s.identity.Timeline))
	if stored == "" {
		return nil
	}
	system, timeline, err := parseSystem(stored)
	if err != nil {
		return err
	}
	s.timeline.Store(timeline)
	return s.sameSystem(system, s.identity.System)
}

// ask opens a walsender to admit it, where the stream would be asked only after a copy.
func (s *Source) ask(ctx context.Context) error {
	conn, err := pg.Connect(ctx, s.env, s.opts.Config, pg.ConnectOptions{AppName: appName, Replication: true})
	if err != nil {
		return errs.New(errs.SourceUnreachable, "cannot open a replication connection to %s: %w", s.opts.Config.Server(), err).Because(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return s.admit(ctx, conn, s.reached)
}

// furthest is the newest place of the log that the target has something from: tables may be further than the position,
// and the views of copies reach to where the log was then.
func furthest(state dataflow.State, position pg.LSN, ahead map[uint32]pg.LSN) (pg.LSN, error) {
	at := position
	for _, lsn := range ahead {
		at = max(at, lsn)
	}
	var highs []string
	for key, value := range state {
		var done doneRange
		var live liveCopy
		var err error
		switch {
		case strings.HasPrefix(key, doneKey):
			err = json.Unmarshal(value, &done)
			highs = append(highs, done.High)
		case strings.HasPrefix(key, liveCopyKey):
			err = json.Unmarshal(value, &live)
			for _, c := range live.Chunks {
				highs = append(highs, c.High)
			}
		}
		if err != nil {
			return 0, errs.New(errs.StateCorrupt, "stored copy %q: %w", key, err).Because(err)
		}
	}
	for _, text := range highs {
		if text == "" {
			continue
		}
		lsn, err := pg.ParseLSN(text)
		if err != nil {
			return 0, errs.New(errs.StateCorrupt, "stored position of a copy: %w", err).Because(err)
		}
		at = max(at, lsn)
	}
	return at, nil
}

// admit is asked with each connection that is to stream, before it does. at is the newest place of the log from which
// something was taken.
func (s *Source) admit(ctx context.Context, conn *pgconn.PgConn, at pg.LSN) error {
	now, err := pg.IdentifySystem(ctx, conn)
	if err != nil {
		return s.lost(err)
	}
	if err := s.sameServer(now); err != nil {
		return err
	}
	if uint32(now.Timeline) == s.timeline.Load() {
		return nil
	}
	if err := s.sameHistory(ctx, conn, now, at); err != nil {
		return err
	}
	s.env.Log.Info("the source is on a new timeline", "timeline", now.Timeline, "was", s.timeline.Load(), "position", at.String())
	s.timeline.Store(uint32(now.Timeline))
	s.crossed = true
	return nil
}

// sameSystem refuses to read another server's log from our position: log positions mean nothing there.
func (s *Source) sameSystem(was, now string) error {
	if was == now {
		return nil
	}
	return errs.New(errs.SourceReplaced, "source %s is another server than the one that was read: system identifier %s, was %s",
		s.opts.Config.Server(), now, was).
		WithHint("positions in one server's log mean nothing in another's; copy anew, as weir help W1003 tells")
}

// sameServer refuses another system, and one that was put back.
func (s *Source) sameServer(now pg.Identity) error {
	if err := s.sameSystem(s.identity.System, now.System); err != nil {
		return err
	}
	if was := s.timeline.Load(); uint32(now.Timeline) < was {
		return errs.New(errs.SourceReplaced, "source %s went back to timeline %d; %d was read", s.opts.Config.Server(), now.Timeline, was).
			WithHint("it was restored to a time before what was mirrored; copy anew, as weir help W1003 tells")
	}
	return nil
}

// sameHistory refuses a server that left the timeline we know before the place that we have read to. A server that does
// not tell its history is refused too: nothing else shows that what the target holds is part of it.
func (s *Source) sameHistory(ctx context.Context, conn *pgconn.PgConn, now pg.Identity, at pg.LSN) error {
	const hint = "the target holds what this server may never have had; copy anew, as weir help W1003 tells"
	was := s.timeline.Load()
	content, err := pg.TimelineHistory(ctx, conn, now.Timeline)
	if err != nil {
		var refused *pgconn.PgError
		if !errors.As(err, &refused) {
			return s.lost(err)
		}
		return errs.New(errs.SourceReplaced, "source %s is on timeline %d and does not tell how it came there from %d: %s",
			s.opts.Config.Server(), now.Timeline, was, refused.Message).Because(err).WithHint(hint)
	}
	history, err := parseHistory(content)
	if err != nil {
		return errs.New(errs.SourceProtocol, "history of timeline %d: %w", now.Timeline, err).Because(err)
	}
	end, ok := sharedUntil(history, was)
	switch {
	case !ok:
		return errs.New(errs.SourceReplaced, "source %s is on timeline %d, which does not come from timeline %d, which was read",
			s.opts.Config.Server(), now.Timeline, was).WithHint(hint)
	case at > end:
		e := errs.New(errs.SourceReplaced, "source %s left timeline %d at %s, before %s, to which it was read",
			s.opts.Config.Server(), was, end, at)
		if at == unknownHigh {
			e = errs.New(errs.SourceReplaced, "source %s left timeline %d at %s, while the first copy was taken up again", s.opts.Config.Server(), was, end)
		}
		return e.WithDetail("it is on timeline %d now: a standby that was behind was promoted, or a backup restored", now.Timeline).WithHint(hint)
	}
	return nil
}

// systemState is what is stored of the server.
func (s *Source) systemState() dataflow.StateChange {
	return dataflow.StateChange{Key: systemKey, Value: fmt.Appendf(nil, "%s/%d", s.identity.System, s.timeline.Load())}
}

// noteTimeline stores a new timeline before any position on it.
func (s *Source) noteTimeline() error {
	if !s.crossed {
		return nil
	}
	if err := s.reader.flush(); err != nil {
		return err
	}
	s.crossed = false
	return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: append(positionState(s.reader.position), s.systemState())})
}

// timelineOfStandby asks a standby over SQL. It lags until the next restart point.
func (s *Source) timelineOfStandby(ctx context.Context, conn pg.Querier) (uint32, error) {
	var timeline uint32
	err := conn.QueryRow(ctx, `SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)::int8 FROM pg_control_checkpoint() c, pg_control_recovery() r`).Scan(&timeline)
	return timeline, err
}

// followTimeline takes up the timeline that a standby has changed to while it was read, which does not interrupt the
// stream: a server never leaves the history that it has replayed without a restart.
func (s *Source) followTimeline() error {
	now, err := s.timelineOfStandby(s.ctx, s.ctl)
	if err != nil {
		return s.lost(err)
	}
	if now > s.timeline.Load() {
		s.timeline.Store(now)
		s.crossed = true
	}
	return s.noteTimeline()
}
