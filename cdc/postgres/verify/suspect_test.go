package verify

import (
	"testing"
	"time"
)

func TestSuspect(t *testing.T) {
	type step struct {
		at                    int // seconds
		before, target, after string
		want                  verdict
	}
	for _, c := range []struct {
		name  string
		rule  rule
		steps []step
	}{
		{"arrives late", rule{}, []step{{0, "b", "a", "b", pending}, {5, "b", "a", "b", pending}, {9, "b", "b", "b", equal}}},
		{"stays different", rule{}, []step{{0, "b", "a", "b", pending}, {5, "b", "a", "b", pending}, {11, "b", "a", "b", different}}},
		{"three looks are needed", rule{}, []step{{0, "b", "a", "b", pending}, {30, "b", "a", "b", pending}, {31, "b", "a", "b", different}}},
		{"a change starts the clock anew", rule{}, []step{{0, "b", "a", "b", pending}, {9, "c", "a", "c", pending}, {11, "c", "a", "c", pending}, {18, "c", "a", "c", pending}, {19, "c", "a", "c", different}}},
		{"a change between the looks says nothing", rule{}, []step{{0, "b", "a", "c", pending}, {1, "c", "a", "c", pending}, {2, "c", "c", "d", equal}}},
		{"the target was faster than the second look", rule{}, []step{{0, "b", "c", "c", equal}}},
		{"missing stays missing", rule{}, []step{{0, "b", "", "b", pending}, {6, "b", "", "b", pending}, {12, "b", "", "b", different}}},
		{"extra stays extra", rule{}, []step{{0, "", "x", "", pending}, {6, "", "x", "", pending}, {12, "", "x", "", different}}},
		{"both gone", rule{}, []step{{0, "b", "", "", equal}}},
		{"never still, and followed", rule{}, []step{{0, "b", "a", "c", pending}, {9, "d", "a", "e", pending}, {20, "f", "c1", "g", pending}, {39, "h", "d1", "i", pending}, {40, "j", "e1", "k", unsettledRow}}},
		{"never still, and not followed", rule{}, []step{{0, "b", "a", "c", pending}, {20, "d", "a", "e", pending}, {40, "f", "a", "g", different}}},
		{"caught up", rule{caughtUp: true}, []step{{0, "b", "a", "b", pending}, {0, "b", "a", "b", different}}},
		{"caught up but changing", rule{caughtUp: true}, []step{{0, "b", "a", "b", pending}, {0, "c", "a", "c", pending}, {0, "c", "a", "c", different}}},
	} {
		c.rule.settle = 10 * time.Second
		start := time.Unix(0, 0)
		s := newSuspect(nil, start)
		for i, st := range c.steps {
			if got := s.look(c.rule, start.Add(time.Duration(st.at)*time.Second), st.before, st.target, st.after); got != st.want {
				t.Errorf("%s: look %d says %d, want %d", c.name, i, got, st.want)
			}
		}
	}
}
