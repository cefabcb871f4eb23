//go:build !unix

package state

// Without mmap the arena is a slice: it takes what it may need at once.
func reserve(uint64) ([]byte, error) { return make([]byte, 1<<30), nil }

func commit([]byte) {}

func release([]byte) {}
