package postgres

import (
	"context"
	"testing"

	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
)

// TestKeepaliveInsideTransaction: a server answers in the middle of what it sends. When that lets go of a copy's filter,
// the note of it is a boundary, which must not fall into a transaction.
func TestKeepaliveInsideTransaction(t *testing.T) {
	view, err := snapshot.ParseView("10:20:")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		inTx, inBlock bool
		open          map[uint32]bool
		settles       bool
	}{
		"between transactions":             {settles: true},
		"inside of a transaction":          {inTx: true},
		"inside of a block of an open one": {inBlock: true, open: map[uint32]bool{7: true}},
		"beside an open one":               {open: map[uint32]bool{7: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Source{ctx: context.Background(), out: make(chan dataflow.Message, 10), consistent: true,
				filters: map[uint32]*tableFilter{1: {key: -1, ranges: []filterRange{{view: &view, high: 100}}}}}
			s.reader = &reader{inTx: c.inTx, inBlock: c.inBlock, open: c.open, emit: s.send, rels: map[uint32]*relation{}}
			if err := s.keepalive(200); err != nil {
				t.Fatal(err)
			}
			if settled := len(s.filters) == 0; settled != c.settles || !settled && len(s.out) > 0 {
				t.Errorf("filter gone: %v, messages: %d", settled, len(s.out))
			}
			if c.inTx || c.inBlock {
				if err := s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true}); err == nil {
					t.Error("a boundary was let through")
				}
			}
		})
	}
}

// TestBoundaryBehindItsRows: a note with a position may not overtake rows in front of that position.
func TestBoundaryBehindItsRows(t *testing.T) {
	s := &Source{ctx: context.Background(), out: make(chan dataflow.Message, 10)}
	s.reader = &reader{emit: s.send, rows: &changelog.Rows{}, position: 200}
	s.reader.rows.Append(s.reader.rows.UseRelation(&changelog.Relation{ID: 1}), changelog.Insert, false, nil, changelog.Image{0, 0})
	note := dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: positionState(200)}
	if err := s.send(note); err == nil {
		t.Fatal("a boundary overtook rows that belong before it")
	}
	if err := s.reader.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.send(note); err != nil {
		t.Fatal(err)
	}
	if first := <-s.out; first.Kind != dataflow.KindRows || !first.Boundary {
		t.Errorf("the first message is of kind %v", first.Kind)
	}
}
