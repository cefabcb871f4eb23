package typed_test

import (
	"context"
	"slices"
	"testing"

	"github.com/weirstream/weir/cdc/postgres/typed"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
)

// TestScan: tables are read once, as they are at one moment, and not again.
func TestScan(t *testing.T) {
	d := newDatabase(t, itemsDDL)
	tables := []typed.Table{items, logs, accounts}
	for i := range tables {
		tables[i].Key, tables[i].Metadata = nil, nil
	}
	tables[0].Columns = tables[0].Columns[:6]
	m := newModel(tables...)
	s := typed.NewScan(env.Real(nil), d.cfg, tables)
	defer func() { _ = s.Close(context.Background()) }()
	if err := s.Open(context.Background(), dataflow.State{}); err != nil {
		t.Fatal(err)
	}
	var state []dataflow.StateChange
	for first := true; ; first = false {
		msg, err := s.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if first {
			d.exec("DELETE FROM items; DELETE FROM accounts")
		}
		if msg.Kind == dataflow.KindEnd {
			break
		}
		if msg.Boundary != (msg.Kind == dataflow.KindMark) {
			t.Error("a boundary before the end")
		}
		if state = append(state, msg.State...); msg.Kind != dataflow.KindBatch {
			continue
		}
		if err := m.apply(msg.Table, msg.Batch); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.dump(0)); n != 6000 {
		t.Errorf("%d items", n)
	}
	if want := d.texts(wants[1]); !slices.Equal(m.dump(1), slices.Sorted(slices.Values(want))) {
		t.Errorf("logs: %q", m.dump(1))
	}
	if n := len(m.dump(2)); n != 3000 {
		t.Errorf("%d accounts", n)
	}
	again := typed.NewScan(env.Real(nil), d.cfg, tables)
	if err := again.Open(context.Background(), dataflow.State{state[0].Key: state[0].Value}); err != nil {
		t.Fatal(err)
	}
	if msg, err := again.Read(context.Background()); err != nil || msg.Kind != dataflow.KindEnd {
		t.Errorf("it is read again: %v, %v", msg.Kind, err)
	}
}
