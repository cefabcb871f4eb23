//go:build unix

package state

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reserve takes a range of addresses without memory behind it. Where the system limits addresses it takes less.
func reserve(size uint64) ([]byte, error) {
	for ; ; size /= 2 {
		p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err == nil {
			return unsafe.Slice((*byte)(p), size), nil
		}
		if size <= 1<<28 {
			return nil, fmt.Errorf("reserve %d bytes of addresses for state: %w", size, err)
		}
	}
}

// commit makes b accessible, zeroed.
func commit(b []byte) {
	if len(b) == 0 {
		return
	}
	if err := unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		panic(fmt.Sprintf("state: %d bytes of memory: %v", len(b), err))
	}
}

func release(b []byte) {
	if len(b) > 0 {
		_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)))
	}
}
