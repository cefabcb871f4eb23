package main

import (
	"slices"
	"strings"
	"testing"
)

// TestViewsTail: rows and changes are laid out epoch by epoch, and as objects with -o json.
func TestViewsTail(t *testing.T) {
	f := newFixture(t)
	f.node()
	f.want(t, 1, "views", "tail", "towns", "--pipeline", "p")
	want := `EPOCH      CITY  N
9      +   oslo  2
9      +3  NULL  1
12     -   oslo           2
12     +   a longer name  3
`
	if got := f.out.String(); got != want {
		t.Errorf("it prints\n%s", got)
	}
	if !strings.Contains(f.err.String(), "some are lost") || !slices.Contains(f.calls, `tail towns of "p"`) {
		t.Errorf("%s %v", f.err.String(), f.calls)
	}
	f.out.Reset()
	f.want(t, 1, "views", "tail", "towns", "-o", "json")
	if got := f.out.String(); !strings.HasPrefix(got, `{"epoch":9,"change":"+","row":{"city":"oslo","n":2}}`+"\n") || strings.Count(got, "\n") != 4 {
		t.Errorf("it prints\n%s", got)
	}
}

// TestStateGet: what lies there for a key is shown as a row where it is one.
func TestStateGet(t *testing.T) {
	f := newFixture(t)
	f.node()
	f.want(t, 0, "state", "get", "p", "v", "oslo,1")
	for _, says := range []string{`{"n":2}`, "0x0200", "aggregate count(*)", "groups"} {
		if !strings.Contains(f.out.String(), says) {
			t.Errorf("it lacks %s:\n%s", says, f.out.String())
		}
	}
	if !slices.Contains(f.calls, "state of p v oslo,1") {
		t.Errorf("%v", f.calls)
	}
}
