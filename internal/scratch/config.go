package scratch

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Config says how a server differs from the usual one, which speaks logical replication, trusts everybody on
// 127.0.0.1 and on a socket in its directory, and flushes what it commits. The zero value is that usual server.
type Config struct {
	Port              int               // default: a free one, kept for the life of the Server
	Settings          map[string]string // added to postgresql.conf; they win over the settings of this package
	HBA               []string          // lines of pg_hba.conf that come before the lines of this package
	Logins            []Login           // roles that must log in with a password
	SuperuserPassword string            // role postgres must log in with it over TCP
	TLS               bool              // TCP connections must use TLS
	TCPOnly           bool              // no Unix socket
	FsyncOff          bool              // commits survive Kill but not a crash of the operating system
}

// Login is a role that may log in, and replicate, with a password.
type Login struct{ User, Password string }

// clone lets a standby change the configuration of its primary.
func (c Config) clone() Config {
	c.Settings = maps.Clone(c.Settings)
	c.HBA = slices.Clone(c.HBA)
	c.Logins = slices.Clone(c.Logins)
	return c
}

// settings is the content of the settings file. A later line wins over an earlier one.
func (c Config) settings(s *Server) string {
	socketDir := s.Dir
	if c.TCPOnly {
		socketDir = ""
	}
	lines := [][2]string{
		{"listen_addresses", "127.0.0.1"},
		{"port", fmt.Sprint(s.Port)},
		{"unix_socket_directories", socketDir},
		{"wal_level", "logical"},
		{"max_wal_senders", "20"},
		{"max_replication_slots", "20"},
		{"max_connections", "100"},
		{"shared_buffers", "128MB"},
		// Under /dev/shm a killed server would leave its segments for ever; in its directory they go with it.
		{"dynamic_shared_memory_type", "mmap"},
		{"timezone", "UTC"},
		{"log_timezone", "UTC"},
		{"log_line_prefix", "%m [%p] %q%u@%d "},
		{"password_encryption", "scram-sha-256"},
	}
	if c.FsyncOff {
		lines = append(lines, [2]string{"fsync", "off"})
	}
	if c.TLS {
		lines = append(lines,
			[2]string{"ssl", "on"},
			[2]string{"ssl_cert_file", filepath.Join(s.Dir, "server.crt")},
			[2]string{"ssl_key_file", filepath.Join(s.Dir, "server.key")})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		lines = append(lines, [2]string{name, c.Settings[name]})
	}
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&text, "%s = %s\n", l[0], quoteSetting(l[1]))
	}
	return text.String()
}

// quoteSetting writes a string for postgresql.conf, where a backslash means more than in SQL.
func quoteSetting(value string) string { return quote(strings.ReplaceAll(value, `\`, `\\`)) }

// quote writes a string for SQL.
func quote(value string) string { return "'" + strings.ReplaceAll(value, "'", "''") + "'" }

// QuoteIdent writes a name for SQL.
func QuoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// hba is the content of pg_hba.conf.
func (c Config) hba() string {
	host := "host"
	if c.TLS {
		host = "hostssl"
	}
	var lines []string
	add := func(kind, user, method string) {
		where := ""
		if kind != "local" {
			where = "127.0.0.1/32 "
		}
		lines = append(lines,
			fmt.Sprintf("%s all %s %s%s", kind, user, where, method),
			fmt.Sprintf("%s replication %s %s%s", kind, user, where, method))
	}
	if !c.TCPOnly {
		add("local", "postgres", "trust") // how this package gets in, whatever the test configures below
	}
	lines = append(lines, c.HBA...)
	if !c.TCPOnly {
		add("local", "all", "trust")
	}
	for _, l := range c.Logins {
		add(host, QuoteIdent(l.User), "scram-sha-256")
	}
	if c.SuperuserPassword != "" {
		add(host, "postgres", "scram-sha-256")
	}
	add(host, "all", "trust")
	return strings.Join(lines, "\n") + "\n"
}

// roles is the SQL that creates the logins, one statement a line.
func (c Config) roles() (string, error) {
	var sql strings.Builder
	if c.SuperuserPassword != "" {
		fmt.Fprintf(&sql, "ALTER ROLE postgres PASSWORD %s\n", quote(c.SuperuserPassword))
	}
	for _, l := range c.Logins {
		fmt.Fprintf(&sql, "CREATE ROLE %s LOGIN REPLICATION PASSWORD %s\n", QuoteIdent(l.User), quote(l.Password))
	}
	for _, l := range append(c.Logins, Login{"postgres", c.SuperuserPassword}) {
		if strings.ContainsAny(l.User+l.Password, "\n\\") {
			return "", fmt.Errorf("role %q: names and passwords with newlines or backslashes are not supported", l.User)
		}
	}
	return sql.String(), nil
}
