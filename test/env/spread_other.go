//go:build !linux

package testenv

// spread is for ext4.
func spread(string) {}
