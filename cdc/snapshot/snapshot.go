// Package snapshot reconciles a table's copy with the log that goes on beside it. It is pure.
//
// A copy sees the table under one view of the database, a View. The log delivers transactions that the copy has already
// seen and others that it has not, and the two cannot be told apart by log position: a transaction's commit record can
// lie before the position that was current when the view was taken, and the view still not hold it, for as long as the
// committing session has not left the list of running ones (with a synchronous standby, as long as that takes to
// answer). So the test is the transaction's number against the view, never its position.
package snapshot

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// View is what a database snapshot sees: transactions below Xmin have ended, those from Xmax on had not begun, and of
// those between the ones in Running had not ended. (pg_current_snapshot)
type View struct {
	Xmin, Xmax uint64
	Running    []uint64 // ascending
}

// ParseView reads pg_current_snapshot()::text, "xmin:xmax:xip,xip".
func ParseView(s string) (View, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return View{}, fmt.Errorf("snapshot %q: want xmin:xmax:running", s)
	}
	var v View
	var err error
	if v.Xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return View{}, fmt.Errorf("snapshot %q: xmin: %w", s, err)
	}
	if v.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return View{}, fmt.Errorf("snapshot %q: xmax: %w", s, err)
	}
	if parts[2] != "" {
		for _, p := range strings.Split(parts[2], ",") {
			x, err := strconv.ParseUint(p, 10, 64)
			if err != nil {
				return View{}, fmt.Errorf("snapshot %q: running: %w", s, err)
			}
			v.Running = append(v.Running, x)
		}
	}
	slices.Sort(v.Running)
	if v.Xmin > v.Xmax {
		return View{}, fmt.Errorf("snapshot %q: xmin is behind xmax", s)
	}
	return v, nil
}

func (v View) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:", v.Xmin, v.Xmax)
	for i, x := range v.Running {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, x)
	}
	return b.String()
}

// Widen gives the log's 32-bit transaction number its epoch. The log is never two billion transactions away from the
// view: the server would have stopped first.
func (v View) Widen(xid uint32) uint64 {
	return uint64(int64(v.Xmax) + int64(int32(xid-uint32(v.Xmax))))
}

// Sees tells whether a committed transaction of the log is part of the view. On a hot standby the view lists no running
// transactions although there are some; pass standby so that every number from Xmin on counts as not seen.
func (v View) Sees(xid uint32, standby bool) bool {
	x := v.Widen(xid)
	if x < v.Xmin {
		return true
	}
	if x >= v.Xmax || standby {
		return false
	}
	_, running := slices.BinarySearch(v.Running, x)
	return !running
}

// Delivered remembers the transactions that the log has handed over, so that a new View can be refused when it does not
// see one of them: its copy would be older than what is already applied, and nothing would bring the difference again.
type Delivered struct {
	ring []uint32
	next int
	lost uint32 // newest number that the ring no longer holds
	any  bool
	// Floor: transactions below it were delivered before the ring began, by an earlier process.
	Floor uint64
}

const deliveredSize = 1 << 16

// Add notes a transaction whose end was delivered.
func (d *Delivered) Add(xid uint32) {
	if d.ring == nil {
		d.ring = make([]uint32, 0, 256)
	}
	if len(d.ring) < deliveredSize {
		d.ring = append(d.ring, xid)
		return
	}
	out := d.ring[d.next]
	if !d.any || int32(out-d.lost) > 0 {
		d.lost, d.any = out, true
	}
	d.ring[d.next] = xid
	d.next = (d.next + 1) % deliveredSize
}

// Allows tells whether a copy under v may be taken: v sees everything that was delivered.
func (d *Delivered) Allows(v View, standby bool) bool {
	for _, x := range v.Running {
		if x < d.Floor {
			return false // perhaps delivered before we began
		}
	}
	if d.Floor > v.Xmax {
		return false
	}
	if d.any && v.Widen(d.lost) >= v.Xmin {
		return false
	}
	for _, xid := range d.ring {
		if !v.Sees(xid, standby) {
			return false
		}
	}
	return true
}

// Bounds splits the integers (lo, hi] into at most n ranges of about equal width and returns the n-1 inner bounds. The
// first and last range are open, so rows beyond what was seen at planning belong to them.
func Bounds(lo, hi int64, n int) []int64 {
	if n < 2 || hi <= lo {
		return nil
	}
	width := uint64(hi) - uint64(lo)
	if uint64(n) > width {
		n = int(width)
	}
	var out []int64
	for i := 1; i < n; i++ {
		// Multiplying first would overflow for the full range of int64.
		b := int64(uint64(lo) + width/uint64(n)*uint64(i))
		if len(out) == 0 || cmp.Compare(b, out[len(out)-1]) > 0 {
			out = append(out, b)
		}
	}
	return out
}

// RangeOf is the index of the range that holds key, given the inner bounds: range i is (bounds[i-1], bounds[i]].
func RangeOf(bounds []int64, key int64) int {
	i, _ := slices.BinarySearch(bounds, key)
	return i
}
