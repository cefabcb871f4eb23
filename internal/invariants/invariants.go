// Package invariants ends the program when it has proved itself wrong. A broken invariant is a defect of weir, never
// a user's error, so it panics instead of returning: going on could publish wrong rows.
package invariants

import "fmt"

// Check panics when ok is false. It runs in every build: use it where the test costs nothing beside its surroundings.
func Check(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}

// Poison overwrites a freed arena under the invariants tag, so a slice kept too long is noticed.
func Poison(b []byte) {
	if !Enabled {
		return
	}
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xdb
	}
}
