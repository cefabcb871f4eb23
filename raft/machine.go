package raft

import (
	"fmt"
	"io"

	hraft "github.com/hashicorp/raft"
)

// machine is the library's view of an FSM.
type machine struct {
	fsm        FSM
	guard      *guard
	restoreErr error // of a restore while opening; written before Open goes on
}

// applied wraps a result, so that nil from a machine that ended is not taken for one.
type applied struct{ result any }

func (m *machine) Apply(l *hraft.Log) any {
	if m.guard.err() != nil {
		return nil // an entry before this one is missing from the state, or soon will be
	}
	result, err := m.fsm.Apply(l.Index, l.Data)
	if err != nil {
		m.guard.note(fmt.Errorf("apply entry %d: %w", l.Index, err))
		return nil
	}
	return applied{result}
}

func (m *machine) Snapshot() (hraft.FSMSnapshot, error) {
	w, err := m.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	return frozen{w}, nil
}

// Restore leaves closing to the library, which does it in every case.
func (m *machine) Restore(r io.ReadCloser) error {
	if err := m.fsm.Restore(r); err != nil {
		m.restoreErr = err
		return err
	}
	return nil
}

type frozen struct{ state io.WriterTo }

func (f frozen) Persist(sink hraft.SnapshotSink) error {
	_, err := f.state.WriteTo(sink)
	return err
}

func (frozen) Release() {}
