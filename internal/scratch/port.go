package scratch

import (
	"fmt"
	"syscall"
)

// A Port is a TCP port of 127.0.0.1 that belongs to us although nobody may be listening on it.
//
// A server that is stopped and started again must come back at its old address, so the port must not be given away
// meanwhile. A socket that is bound and never listens does that: the kernel hands the port to nobody who asks for any
// free port, nor to an outgoing connection, a connect is refused, and a server that binds the port with SO_REUSEADDR,
// as Postgres and Go do, succeeds. When this process dies the kernel frees it.
type Port struct {
	Number int
	fd     int
}

// ReservePort takes the port with the given number, or any free one for 0.
func ReservePort(number int) (*Port, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p := &Port{Number: number, fd: fd}
	if err := p.bind(); err != nil {
		p.Release()
		return nil, fmt.Errorf("reserve port %d of 127.0.0.1: %w", number, err)
	}
	return p, nil
}

func (p *Port) bind() error {
	if err := syscall.SetsockoptInt(p.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := syscall.Bind(p.fd, &syscall.SockaddrInet4{Port: p.Number, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	addr, err := syscall.Getsockname(p.fd)
	if err != nil {
		return err
	}
	p.Number = addr.(*syscall.SockaddrInet4).Port
	return nil
}

// Release gives the port up.
func (p *Port) Release() { syscall.Close(p.fd) }
