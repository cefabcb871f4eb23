package typed

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// copier is the first copy's progress.
type copier struct {
	ranges []dataflow.Range // still to be read, and the one that is being read
	stream *copyStream      // of the first of them
	ahead  *copyStream      // of the second, which the server sends meanwhile
	worker int              // whose connection the next stream is read on
	rows   int              // of the range at hand, since a cut was allowed
	// partial are the ids of ranges in whose midst a cut was allowed, by this start or an earlier one.
	partial map[string]bool

	// Rows, those of earlier starts as the catalog counts them, of which all; for whoever looks on.
	copied, all atomic.Int64
}

// partialKey and a range's id tell that checkpoints may hold some of a range's rows.
const partialKey = "partial/"

// Copied implements dataflow.Agreeing.
func (s *Source) Copied() (rows, of int64) { return s.copier.copied.Load(), s.copier.all.Load() }

// beginCopy finds out what is left to copy, and has what an earlier start has read a part of emptied.
func (s *Source) beginCopy(ctx context.Context, state dataflow.State) error {
	c := &s.copier
	ranges, initial, err := s.inner.Ranges(ctx)
	if err != nil {
		return err
	}
	c.ranges, c.partial = ranges, map[string]bool{}
	slices.SortStableFunc(ranges, func(x, y dataflow.Range) int { return cmp.Compare(s.asked(x.Rel), s.asked(y.Rel)) })
	for _, spec := range s.inner.Specs() {
		c.all.Add(max(spec.RelTuples, 0))
	}
	left := int64(0)
	for _, r := range ranges {
		left += max(r.EstRows, 0)
		if state[partialKey+r.ID] == nil {
			continue
		}
		c.partial[r.ID] = true
		gone, ok := s.emptiedRange(r)
		if !ok {
			return errs.New(errs.StateCorrupt, "range %s of table %s was read in part and cannot be emptied", r.ID, r.Rel)
		}
		s.next = append(s.next, dataflow.Message{Kind: dataflow.KindEmptied, Table: s.asked(r.Rel), Emptied: gone})
	}
	if len(initial) == 0 {
		c.copied.Store(max(c.all.Load()-left, 0))
	}
	s.env.Log.Info("first copy", "database", s.opts.Config.Database(), "ranges", len(ranges), "rows", left)
	if len(initial) > 0 { // before a row is read, so that a start behind a crash finds the slot again
		s.next = append(s.next, dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: initial})
	}
	return nil
}

// emptiedRange takes the rows of a range away; false if nobody can.
func (s *Source) emptiedRange(r dataflow.Range) (*dataflow.Emptied, bool) {
	i := s.asked(r.Rel)
	if i < 0 || s.tables[i].Key == nil {
		return nil, false
	}
	column, after, through := s.inner.RangeKey(r)
	if column == "" {
		return &dataflow.Emptied{}, true
	}
	at := s.tables[i].Columns.Index(column)
	return &dataflow.Emptied{Column: at, After: after, Through: through}, at >= 0 && s.tables[i].Metadata[at] == ""
}

// copy reads the first copy on. When it says false, nothing is to be given yet.
func (s *Source) copy(ctx context.Context) (dataflow.Message, bool, error) {
	c := &s.copier
	if len(c.ranges) == 0 {
		state, err := s.inner.CopyDone(ctx)
		if err != nil {
			return dataflow.Message{}, false, err
		}
		s.copied = true
		return s.mark(state), true, nil
	}
	var err error
	if c.stream == nil {
		if c.stream, c.ahead = c.ahead, nil; c.stream == nil {
			if c.stream, err = s.open(c.ranges[0]); err != nil {
				return dataflow.Message{}, false, err
			}
		}
		if len(c.ranges) > 1 {
			if c.ahead, err = s.open(c.ranges[1]); err != nil {
				return dataflow.Message{}, false, err
			}
		}
		c.rows = 0
	}
	return s.copyRange(ctx)
}

// open begins to read a range. Two are read at a time, each on a connection of its own.
func (s *Source) open(r dataflow.Range) (*copyStream, error) {
	c := &s.copier
	i := s.asked(r.Rel)
	if i < 0 {
		return nil, errs.New(errs.EngineInternal, "table %s is copied and was not asked for", r.Rel)
	}
	stream, err := s.inner.OpenRange(s.life, c.worker, r)
	if err != nil {
		return nil, err
	}
	c.worker = 1 - c.worker
	return &copyStream{s: stream, table: i, places: s.tables[i].places(stream.Columns())}, nil
}

// copyRange gives the next batch of the range that is being read, or what is to be stored behind it.
func (s *Source) copyRange(ctx context.Context) (dataflow.Message, bool, error) {
	c := &s.copier
	r, i := c.ranges[0], c.stream.table
	t := s.tables[i]
	t.op = 0
	err := c.stream.fill(ctx, t)
	if err != nil && err != io.EOF {
		return dataflow.Message{}, false, err
	}
	c.copied.Add(int64(t.batch.Len))
	c.rows += t.batch.Len
	var state []dataflow.StateChange
	switch {
	case err == io.EOF:
		if err := c.stream.s.Close(); err != nil {
			return dataflow.Message{}, false, err
		}
		state = s.inner.RangeState(r, c.stream.s.Rows())
		if c.partial[r.ID] {
			state = append(state, dataflow.StateChange{Key: partialKey + r.ID})
		}
		c.ranges, c.stream = c.ranges[1:], nil
	case c.rows >= s.opts.PartialRows:
		c.rows = 0
		if _, ok := s.emptiedRange(r); ok {
			c.partial[r.ID] = true
			state = []dataflow.StateChange{{Key: partialKey + r.ID, Value: []byte{1}}}
		}
	}
	if t.batch.Len == 0 {
		return s.mark(state), state != nil, nil
	}
	s.message = dataflow.Message{Boundary: state != nil}
	s.pending = append(s.pending, state...)
	return s.give(i, true), true, nil
}

// mark has state stored.
func (s *Source) mark(state []dataflow.StateChange) dataflow.Message {
	s.pending = append(s.pending, state...)
	s.message = dataflow.Message{Boundary: true}
	m := dataflow.Message{Kind: dataflow.KindMark}
	s.end(&m)
	s.message = dataflow.Message{}
	return m
}

func (c *copier) close() {
	for _, stream := range []*copyStream{c.stream, c.ahead} {
		if stream != nil {
			_ = stream.s.Close() // its goroutine may wait for somebody to take what it has read
		}
	}
}

// chunk is told that a range of a table is read anew beside the stream, its rows coming behind: its shape changed before the
// first copy came to it, or a TRUNCATE emptied what only some of the ranges saw. Nobody sees that while the tables do not
// agree yet. Later there would be epochs that have some of the table's rows.
func (s *Source) chunk(c *dataflow.Chunk) error {
	i := s.asked(c.Rel)
	if i < 0 {
		return nil
	}
	t := s.tables[i]
	gone := &dataflow.Emptied{}
	ok := t.Key != nil && !s.agrees
	if len(c.Key) == 1 && ok {
		gone.Column = t.Columns.Index(c.Key[0])
		gone.After, gone.Through = bound(c.After), bound(c.Through)
		ok = gone.All() || gone.Column >= 0 && t.Metadata[gone.Column] == ""
		gone.Column = max(gone.Column, 0)
	}
	if !ok {
		return errs.New(errs.SourceSchemaChange, "table %s was changed in a way that makes it be copied again", c.Rel).WithHint("%s", hintAnew)
	}
	s.next = append(s.next, dataflow.Message{Kind: dataflow.KindEmptied, Table: i, Emptied: gone})
	return nil
}

func bound(text []string) *int64 {
	if len(text) != 1 {
		return nil
	}
	n, err := strconv.ParseInt(text[0], 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// truncated is told that tables were emptied.
func (s *Source) truncated(tr *changelog.Truncate) error {
	for _, rel := range tr.Relations {
		i := s.asked(rel)
		if i < 0 {
			continue
		}
		if s.tables[i].Key == nil {
			return errs.New(errs.SourceSchemaChange, "table %s was emptied by TRUNCATE, and without a PRIMARY KEY nobody keeps the rows that went", rel).
				WithHint("declare its key, or empty it by DELETE. To go on, drop the pipeline and create it again, which copies the tables anew")
		}
		s.next = append(s.next, dataflow.Message{Kind: dataflow.KindEmptied, Table: i, Emptied: &dataflow.Emptied{}})
	}
	return nil
}
