package state

import (
	"math"
	"testing"
)

func TestDeltaPlacesDoNotWrap(t *testing.T) {
	if got, want := spanOf(math.MaxUint32-4, math.MaxUint32), (span{math.MaxUint32 - 4, 4}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	defer func() {
		if recover() == nil {
			t.Error("a place beyond 32 bits was taken")
		}
	}()
	spanOf(1<<32-2, 1<<32+2)
}
