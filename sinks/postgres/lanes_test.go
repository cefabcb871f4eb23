package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// tableOf reads keys such as table/7.
func tableOf(key string) (oid uint32, ok bool) {
	n, err := fmt.Sscanf(key[strings.IndexByte(key, '/')+1:], "%d", &oid)
	return oid, n == 1 && err == nil
}

func testLanes(n int) *Lanes {
	l := NewLanes(nil, LaneOptions{Count: n, TableOf: tableOf, Options: Options{
		Route: func(schema, name string) (string, string, bool) { return schema, name, name != "ours not" },
	}})
	l.lanes, l.base = make([]*Target, n), make([]dataflow.Checkpoint, n)
	l.acks, l.stop = make(chan dataflow.Ack, 100), make(chan struct{})
	l.seen.visible, l.seen.durable = make([]dataflow.Checkpoint, n), make([]dataflow.Checkpoint, n)
	return l
}

func TestLaneStates(t *testing.T) {
	state := func(position string, tables ...int) dataflow.State {
		s := dataflow.State{"position": []byte(position)}
		for _, oid := range tables {
			s[fmt.Sprintf("table/%d", oid)] = []byte("{}")
		}
		return s
	}
	l := testLanes(3)
	all, err := l.union([]dataflow.State{state("0/30", 1, 2), state("0/20", 3), state("0/40", 4)})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"position": "0/20", "ahead/1": "0/30", "ahead/2": "0/30", "ahead/4": "0/40", "table/3": "{}"} {
		if got := string(all[key]); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if all["ahead/3"] != nil {
		t.Error("a table of the last lane is said to be ahead")
	}
	if lane := l.laneOf(&changelog.Relation{ID: 4, Schema: "s", Name: "d"}); lane != 2 {
		t.Errorf("a table whose state is in lane 2 goes to lane %d", lane)
	}
	if _, err := testLanes(2).union([]dataflow.State{state("0/30", 1), {}}); !errs.Is(err, errs.TargetRejected) {
		t.Errorf("a lane without a position: %v", err)
	}
}

// TestLaneOfTable: whatever happens to one table of the target happens in one lane.
func TestLaneOfTable(t *testing.T) {
	l := testLanes(3)
	rel := func(id uint32, name string) *changelog.Relation {
		return &changelog.Relation{ID: id, Schema: "s", Name: name}
	}
	used := map[int]bool{}
	for i := range 3 {
		used[l.laneOf(rel(uint32(10+i), fmt.Sprint(i)))] = true
	}
	if len(used) != 3 {
		t.Errorf("three tables are in lanes %v", used)
	}
	a := l.laneOf(rel(1, "a"))
	if got := l.laneOf(rel(1, "b")); got != a {
		t.Errorf("renamed: lane %d, was %d", got, a)
	}
	for _, name := range []string{"a", "b"} {
		if got := l.laneOf(rel(uint32(100+len(name)+int(name[0])), name)); got != a {
			t.Errorf("another table that is called %s now: lane %d, want %d", name, got, a)
		}
	}
}

func TestLaneAcks(t *testing.T) {
	l := testLanes(2)
	l.first, l.base = 10, []dataflow.Checkpoint{10, 7}
	told := func() (out []string) {
		for {
			select {
			case a := <-l.acks:
				out = append(out, fmt.Sprintf("%d %v %d", a.Checkpoint, a.Durable, a.Rows))
			default:
				return out
			}
		}
	}
	for _, step := range []struct {
		lane int
		ack  dataflow.Ack
		want string
	}{
		{0, dataflow.Ack{Checkpoint: 11, Rows: 5}, "[]"},
		{0, dataflow.Ack{Checkpoint: 12, Rows: 1}, "[]"},
		{0, dataflow.Ack{Checkpoint: 12, Durable: true}, "[]"},
		{1, dataflow.Ack{Checkpoint: 8, Rows: 2}, "[11 false 8]"},
		{1, dataflow.Ack{Checkpoint: 9}, "[12 false 0]"},
		{1, dataflow.Ack{Checkpoint: 9, Durable: true}, "[12 true 0]"},
	} {
		l.acked(step.lane, step.ack)
		if got := fmt.Sprint(told()); got != step.want {
			t.Errorf("lane %d says %+v: %s, want %s", step.lane, step.ack, got, step.want)
		}
	}
}
