package testenv

import "github.com/weirstream/weir/internal/scratch"

// Config says how a server differs from the usual one, which speaks logical replication, trusts everybody on
// 127.0.0.1 and on a socket in its directory, and flushes what it commits. The zero value is that usual server.
type Config = scratch.Config

// Login is a role that may log in, and replicate, with a password.
type Login = scratch.Login

// An Option changes the Config of a server.
type Option func(*Config)

// WithSetting sets a parameter of postgresql.conf.
func WithSetting(name, value string) Option {
	return func(c *Config) {
		if c.Settings == nil {
			c.Settings = map[string]string{}
		}
		c.Settings[name] = value
	}
}

// WithHBA puts lines before the usual ones in pg_hba.conf; the first line that matches a connection decides.
func WithHBA(lines ...string) Option { return func(c *Config) { c.HBA = append(c.HBA, lines...) } }

// WithPassword creates a role that logs in with SCRAM-SHA-256.
func WithPassword(user, password string) Option {
	return func(c *Config) { c.Logins = append(c.Logins, Login{User: user, Password: password}) }
}

// WithSuperuserPassword makes role postgres log in over TCP with SCRAM-SHA-256; URL contains the password.
func WithSuperuserPassword(password string) Option {
	return func(c *Config) { c.SuperuserPassword = password }
}

// WithTLS gives the server a certificate and makes it refuse TCP connections in the clear, so that a test that forgot
// to ask for TLS fails.
func WithTLS() Option { return func(c *Config) { c.TLS = true } }

// WithTCPOnly leaves out the Unix socket.
func WithTCPOnly() Option { return func(c *Config) { c.TCPOnly = true } }

// FsyncOff makes the server faster. Committed rows still survive Kill, because the kernel keeps what was written.
func FsyncOff() Option { return func(c *Config) { c.FsyncOff = true } }

func makeConfig(opts []Option) Config {
	var cfg Config
	for _, opt := range opts {
		opt(&cfg)
	}
	return cfg
}
