package postgres

import (
	"reflect"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/pg"
)

func TestParseHistory(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    []timelineSwitch
		fails   bool
	}{
		"empty": {},
		"promoted twice": {
			content: "1\t0/3000148\tno recovery target specified\n\n2\t1A/B0000000\tafter LSN 1A/B0000000\n",
			want:    []timelineSwitch{{1, 0x3000148}, {2, 0x1A_B0000000}},
		},
		"comments, spaces, no reason": {content: "# by hand\n  1  0/10\n3\t0/00000020", want: []timelineSwitch{{1, 0x10}, {3, 0x20}}},
		"a reason with tabs":          {content: "1\t0/10\tat restore point \"a\tb\"\n", want: []timelineSwitch{{1, 0x10}}},
		"no position":                 {content: "1\n", fails: true},
		"not a number":                {content: "one\t0/10\n", fails: true},
		"not a position":              {content: "1\t16\n", fails: true},
		"does not rise":               {content: "2\t0/10\n1\t0/20\n", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseHistory([]byte(c.content))
			if (err != nil) != c.fails || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestSharedUntil(t *testing.T) {
	history := []timelineSwitch{{1, 100}, {2, 200}, {4, 300}}
	for _, c := range []struct {
		timeline uint32
		until    pg.LSN
		ok       bool
	}{{1, 100, true}, {2, 200, true}, {3, 0, false}, {4, 300, true}, {5, 0, false}} {
		if until, ok := sharedUntil(history, c.timeline); until != c.until || ok != c.ok {
			t.Errorf("timeline %d: shared until %s, %v", c.timeline, until, ok)
		}
	}
	if until, _ := sharedUntil([]timelineSwitch{{1, 100}, {2, 50}}, 1); until != 50 {
		t.Errorf("a later switch further back: shared until %s", until)
	}
}

// TestFurthest: a standby that has the log up to the position may still be behind what the target has.
func TestFurthest(t *testing.T) {
	through := int64(7)
	for name, c := range map[string]struct {
		state dataflow.State
		ahead map[uint32]pg.LSN
		want  pg.LSN
	}{
		"the position":         {want: 100},
		"a table is further":   {ahead: map[uint32]pg.LSN{1: 90, 2: 120}, want: 120},
		"a chunk":              {state: dataflow.State{liveCopyState(3, &liveCopy{Chunks: []liveChunk{{&through, "1:1:", "0/96"}}}).Key: liveCopyState(3, &liveCopy{Chunks: []liveChunk{{&through, "1:1:", "0/96"}}}).Value}, want: 0x96},
		"a range":              {state: dataflow.State{"done/3/0": []byte(`{"view":"1:1:","high":"0/A0"}`), "done/4/0": []byte(`{}`)}, want: 0xA0},
		"a copy not ended yet": {state: dataflow.State{"done/3/0": []byte(`{"view":"1:1:","high":"FFFFFFFF/FFFFFFFF"}`)}, want: unknownHigh},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := furthest(c.state, 100, c.ahead); err != nil || got != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
}
