package postgres

import (
	"slices"
	"testing"

	"github.com/weirstream/weir/engine/dataflow"
)

func TestForgetLater(t *testing.T) {
	state := dataflow.State{}
	for oid, name := range map[uint32]string{1: "a", 2: "b", 3: "b*", 4: "a.b"} {
		shape := &tableShape{Schema: "public", Name: name, Version: 1}
		c := shape.state(oid)
		state[c.Key] = c.Value
	}
	of2 := []string{"table/2", "copy/2", "done/2/0", "left/2", "parts/2", "ahead/2"}
	for _, key := range append(of2, "done/22/0", "left/22", "left/1", "done/1/0", "position") {
		if state[key] == nil {
			state[key] = []byte("x")
		}
	}
	if changes, oids, err := ForgetLater(state, []string{"*.*"}); len(changes)+len(oids) > 0 || err != nil {
		t.Errorf("before the first copy is complete: %v %v %v", changes, oids, err)
	}
	state[liveKey] = []byte("1")
	for _, c := range []struct {
		patterns []string
		oids     []uint32
	}{
		{nil, nil},
		{[]string{"public.nothing_*"}, nil},
		{[]string{"sales.*"}, nil},
		{[]string{"public.b"}, []uint32{2}},
		{[]string{"public.b*", "public.nothing"}, []uint32{2, 3}},
		{[]string{`public."b*"`}, []uint32{3}},
		{[]string{`public."a.b", public.a`}, []uint32{1, 4}},
		{[]string{"*"}, []uint32{1, 2, 3, 4}},
	} {
		changes, oids, err := ForgetLater(state, c.patterns)
		if err != nil || !slices.Equal(oids, c.oids) {
			t.Errorf("%q: %v %v, want %v", c.patterns, oids, err, c.oids)
		}
		gone := map[string]bool{}
		for _, ch := range changes {
			if oid, ok := StateTable(ch.Key); !ok || !slices.Contains(c.oids, oid) || ch.Value != nil {
				t.Errorf("%q: changes %s to %q", c.patterns, ch.Key, ch.Value)
			}
			gone[ch.Key] = true
		}
		for _, key := range of2 {
			if gone[key] != slices.Contains(c.oids, 2) {
				t.Errorf("%q: %s is forgotten: %v", c.patterns, key, gone[key])
			}
		}
	}
}
