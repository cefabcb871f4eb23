//go:build !linux

package scratch

// spread is for ext4.
func spread(string) {}
