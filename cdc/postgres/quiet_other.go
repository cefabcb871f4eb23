//go:build !linux

package postgres

import "net"

// newQuietSocket has no way to do that here.
func newQuietSocket(net.Conn) quietSocket { return nil }
