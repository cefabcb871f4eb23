package snapshot

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestParseView(t *testing.T) {
	for _, text := range []string{"10:20:10,14,15", "5:5:", "796:796:"} {
		v, err := ParseView(text)
		if err != nil || v.String() != text {
			t.Errorf("%s: got %s, %v", text, v, err)
		}
	}
	for _, text := range []string{"", "1:2", "a:2:", "1:b:", "1:2:x", "3:2:", "1:2:3:4"} {
		if _, err := ParseView(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func drawView(t *rapid.T) View {
	xmin := rapid.Uint64Range(3, 5<<32).Draw(t, "xmin")
	v := View{Xmin: xmin, Xmax: xmin + rapid.Uint64Range(0, 50).Draw(t, "width")}
	for x := v.Xmin; x < v.Xmax; x++ {
		if rapid.Bool().Draw(t, "running") {
			v.Running = append(v.Running, x)
		}
	}
	return v
}

// The second answer spells the rule out over full numbers.
func TestSeesIsTheRuleOverWideNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		x := v.Xmin + rapid.Uint64Range(0, 80).Draw(t, "x")
		if back := rapid.Uint64Range(0, 40).Draw(t, "back"); x > back {
			x -= back
		}
		want := x < v.Xmax && !slices.Contains(v.Running, x)
		if got := v.Sees(uint32(x), false); got != want {
			t.Fatalf("view %s, transaction %d: sees %v, want %v", v, x, got, want)
		}
		if got := v.Widen(uint32(x)); got != x {
			t.Fatalf("view %s: %d widened to %d", v, x, got)
		}
		if v.Sees(uint32(x), true) && x >= v.Xmin {
			t.Fatalf("on a standby view %s sees %d", v, x)
		}
	})
}

func TestDeliveredRefusesViewsThatAreTooOld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawView(t)
		var d Delivered
		allowed := true
		for range rapid.IntRange(0, 30).Draw(t, "n") {
			x := v.Xmin + rapid.Uint64Range(0, 60).Draw(t, "x")
			d.Add(uint32(x))
			allowed = allowed && x < v.Xmax && !slices.Contains(v.Running, x)
		}
		if got := d.Allows(v, false); got != allowed {
			t.Fatalf("view %s after %v: allowed %v, want %v", v, d.ring, got, allowed)
		}
	})
}

func TestDeliveredForgetsOnlyWhatIsSafe(t *testing.T) {
	var d Delivered
	for x := range uint32(deliveredSize + 100) {
		d.Add(1000 + x)
	}
	// The ring has lost 1000..1099; a view whose running transactions reach down there cannot be judged.
	if d.Allows(View{Xmin: 1050, Xmax: 1 << 20, Running: []uint64{1050}}, false) {
		t.Error("a view was allowed although what it does not see may have been delivered")
	}
	if !d.Allows(View{Xmin: 1 << 20, Xmax: 1 << 20}, false) {
		t.Error("a view that sees everything was refused")
	}
	d = Delivered{Floor: 500}
	if d.Allows(View{Xmin: 499, Xmax: 600, Running: []uint64{499}}, false) {
		t.Error("a transaction from before the ring began is running and the view was allowed")
	}
	if !d.Allows(View{Xmin: 510, Xmax: 600, Running: []uint64{510}}, false) {
		t.Error("a newer running transaction cannot have been delivered by an earlier process")
	}
}

func TestBoundsCoverEveryKeyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.Int64().Draw(t, "lo")
		hi := rapid.Int64().Draw(t, "hi")
		n := rapid.IntRange(0, 200).Draw(t, "n")
		bounds := Bounds(lo, hi, n)
		if len(bounds) >= max(n, 1) {
			t.Fatalf("%d bounds for %d ranges", len(bounds), n)
		}
		if !slices.IsSorted(bounds) || len(slices.Compact(slices.Clone(bounds))) != len(bounds) {
			t.Fatalf("bounds %v do not rise", bounds)
		}
		key := rapid.Int64().Draw(t, "key")
		i := RangeOf(bounds, key)
		if i > 0 && key <= bounds[i-1] || i < len(bounds) && key > bounds[i] {
			t.Fatalf("key %d is not in range %d of %v", key, i, bounds)
		}
	})
}
