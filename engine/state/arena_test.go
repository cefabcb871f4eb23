package state

import "testing"

// TestSizesFit: no class is smaller than what it was asked for or wastes more than an eighth.
func TestSizesFit(t *testing.T) {
	last := -1
	for n := 1; n < 1<<22; n += 1 + n/97 {
		c, size := class(n)
		if size < n || size > n+n/8+2*unit || c < last || c >= numClasses {
			t.Fatalf("%d bytes: class %d of %d bytes, after class %d", n, c, size, last)
		}
		if _, again := class(size); again != size {
			t.Fatalf("class of %d bytes has %d", size, again)
		}
		last = c
	}
}
