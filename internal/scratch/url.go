package scratch

import (
	"net"
	"net/url"
	"strconv"
)

// Addr is the TCP address of the server.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL is the address of a database for role postgres, over TCP.
func (s *Server) URL(db string) string { return s.URLFor("postgres", s.Addr(), db) }

// URLFor is the address of a database for a role and by way of addr, which is Addr or that of a Proxy. It contains the
// password if the role has one.
func (s *Server) URLFor(role, addr, db string) string {
	u := url.URL{Scheme: "postgres", User: url.User(role), Host: addr, Path: "/" + db, RawQuery: "sslmode=disable"}
	for _, l := range append([]Login{{"postgres", s.cfg.SuperuserPassword}}, s.cfg.Logins...) {
		if l.User == role && l.Password != "" {
			u.User = url.UserPassword(role, l.Password)
		}
	}
	if s.cfg.TLS {
		u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.CAFile}}.Encode()
	}
	return u.String()
}

// SocketURL is the address of a database for role postgres, over the Unix socket.
func (s *Server) SocketURL(db string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + db}
	u.RawQuery = url.Values{"host": {s.Dir}, "port": {strconv.Itoa(s.Port)}}.Encode()
	return u.String()
}
