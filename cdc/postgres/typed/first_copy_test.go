package typed_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/cdc/postgres/typed"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
)

// TestCopyGoesOn: what was stored as copied is not copied again, a table without an integer key is emptied if it was copied in
// part, and progress is told.
func TestCopyGoesOn(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 10000) i;
		CREATE TABLE words (word text PRIMARY KEY); INSERT INTO words SELECT 'w' || i FROM generate_series(1, 10000) i; ANALYZE`)
	words := typed.Table{Schema: "public", Name: "words", Key: []int{0}, Columns: row.Schema{{Name: "word", Type: str.Required()}}}
	state, saved := dataflow.State{}, newModel(words, accounts)
	read, starts, emptied := 0, 0, 0
	for agrees := false; !agrees; starts++ {
		s := d.source(words, accounts)
		if err := s.Open(context.Background(), maps.Clone(state)); err != nil {
			t.Fatal(err)
		}
		if rows, of := s.Copied(); starts == 0 && (rows != 0 || of != 20000) || starts == 5 && (rows < 1000 || rows > 19000) {
			t.Errorf("start %d: %d of %d rows are copied", starts, rows, of)
		}
		m := saved.clone()
		var changed []dataflow.StateChange
		for cuts := 0; cuts < 3+starts%3 && !agrees; {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			msg, err := s.Read(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			switch msg.Kind {
			case dataflow.KindBatch:
				read += msg.Batch.Rows()
				if err := m.apply(msg.Table, msg.Batch); err != nil {
					t.Fatal(err)
				}
			case dataflow.KindEmptied:
				emptied++
				m.empty(msg.Table, msg.Emptied)
			}
			changed = append(changed, msg.State...)
			if msg.Boundary {
				cuts++
				agrees = agrees || msg.Consistent
				for _, c := range changed {
					if state[c.Key] = c.Value; c.Value == nil {
						delete(state, c.Key)
					}
				}
				saved, changed = m.clone(), nil
			}
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if len(saved.rows[0]) != 10000 || len(saved.rows[1]) != 10000 {
		t.Errorf("%d and %d rows, want 10000 each", len(saved.rows[0]), len(saved.rows[1]))
	}
	t.Logf("%d starts read %d rows; emptied %d times", starts, read, emptied)
	if starts < 8 || emptied < 1 || read < 20000 || read > 20000+10000 {
		t.Errorf("%d starts read %d rows, %d times anew", starts, read, emptied)
	}
	for key := range state {
		if strings.HasPrefix(key, "partial/") {
			t.Errorf("%s stays", key)
		}
	}
}

// TestSnapshotOnly: the source ends behind the first copy, also behind a restart, and leaves nothing behind.
func TestSnapshotOnly(t *testing.T) {
	d := newDatabase(t, "CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts SELECT i, 0 FROM generate_series(1, 1000) i; ANALYZE")
	state := dataflow.State{}
	// The first start is killed before it is stored that it ended, the second before it could take the slot away, the third is
	// one too many.
	for start := range 4 {
		s := typed.New(env.Real(nil), typed.Options{Config: d.cfg, Slot: d.slot, Publication: "p", Tables: []typed.Table{accounts}, SnapshotOnly: true})
		m := newModel(accounts)
		if err := s.Open(context.Background(), maps.Clone(state)); err != nil {
			t.Fatal(err)
		}
		var changed []dataflow.StateChange
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			msg, err := s.Read(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if msg.Kind == dataflow.KindBatch {
				if err := m.apply(msg.Table, msg.Batch); err != nil {
					t.Fatal(err)
				}
			}
			changed = append(changed, msg.State...)
			for _, c := range msg.State {
				if state[c.Key] = c.Value; c.Value == nil {
					delete(state, c.Key)
				}
			}
			if msg.Kind == dataflow.KindEnd {
				break
			}
		}
		if start == 0 && len(m.rows[0]) != 1000 {
			t.Errorf("%d rows were copied", len(m.rows[0]))
		}
		if start == 3 {
			s.Confirm(changed)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if start == 0 {
			delete(state, "consistent")
		}
		if slots := d.texts("SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()"); len(slots) > 0 != (start < 2) {
			t.Errorf("start %d leaves slots %v", start, slots)
		}
	}
}

// TestLatestOffset: without a first copy only what comes is told.
func TestLatestOffset(t *testing.T) {
	d := newDatabase(t, "CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts VALUES (1, 0)")
	s := typed.New(env.Real(nil), typed.Options{Config: d.cfg, Slot: d.slot, Publication: "p", Tables: []typed.Table{accounts}, LatestOffset: true})
	m := newModel(accounts)
	defer func() { _ = s.Close(context.Background()) }()
	if err := s.Open(context.Background(), dataflow.State{}); err != nil {
		t.Fatal(err)
	}
	d.exec("INSERT INTO accounts VALUES (2, 5)")
	if err := until(t, s, m, func() bool { return len(m.rows[0]) > 0 }); err != nil {
		t.Fatal(err)
	}
	if got := m.dump(0); !slices.Equal(got, []string{"2|5"}) {
		t.Errorf("got %v", got)
	}
}
