package mirror

import (
	"math"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/options"
)

// TestShares: one stream for several mirrors sends what any of their publications sends. So nobody shares whose publication
// leaves rows or columns out, or may do so.
func TestShares(t *testing.T) {
	for name, c := range map[string]struct {
		spec api.MirrorSpec
		want bool
	}{
		"plain":                {api.MirrorSpec{}, true},
		"filtered":             {api.MirrorSpec{Filters: []api.Filter{{Table: "public.a", Where: "r = 'eu'"}}}, false},
		"columns left out":     {api.MirrorSpec{Exclude: []string{"public.a.v"}}, false},
		"a publication's name": {api.MirrorSpec{Options: map[string]string{"publication.name": "p"}}, false},
		"a slot's name":        {api.MirrorSpec{Options: map[string]string{"slot.name": "s"}}, false},
	} {
		set, err := options.Resolve(options.Layer{Values: c.spec.Options})
		if err != nil {
			t.Fatal(err)
		}
		if got := shares(c.spec, set); got != c.want {
			t.Errorf("%s: shares = %v", name, got)
		}
	}
}

// TestPace: a table's rate follows what it does, starts anew between copy and stream, and ends at 0.
func TestPace(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var p pace
	look := func(copying bool, rows int64) float64 {
		now = now.Add(time.Second)
		got, _ := p.add(now, copying, rows, 100*rows)
		return got
	}
	if got := look(true, 5000); got != 0 {
		t.Errorf("the first look tells %v rows/s", got)
	}
	if got := look(true, 6000); got != 1000 {
		t.Errorf("1000 rows in a second are %v rows/s", got)
	}
	for i := range 20 {
		look(true, 6000+int64(i+1)*3000)
	}
	if got, bytes := p.rowRate, p.bytesRate; math.Abs(got-3000) > 50 || math.Abs(bytes-100*got) > 1 {
		t.Errorf("after 20 s of 3000 rows/s: %v rows/s, %v bytes/s", got, bytes)
	}
	if got := look(false, 7); got != 0 {
		t.Errorf("the stream begins with %v rows/s", got)
	}
	if got := look(false, 17); got != 10 {
		t.Errorf("10 rows in a second are %v rows/s", got)
	}
	for range 60 {
		look(false, 17)
	}
	if p.rowRate != 0 {
		t.Errorf("an idle table has %v rows/s", p.rowRate)
	}
}
