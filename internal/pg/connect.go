package pg

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weirstream/weir/internal/env"
)

// ConnectOptions says what kind of connection is wanted.
type ConnectOptions struct {
	AppName     string            // shown in pg_stat_activity
	Replication bool              // a walsender bound to the database: speaks the replication commands and simple SQL
	Settings    map[string]string // added to, or put in place of, the fixed session settings; see also readOnly
	// ReadBuffer is how many bytes one read takes off the socket at most, for a connection that brings much; 0: the
	// library's 8 KiB.
	ReadBuffer int
	// Dial takes the place of the environment's network, for a connection that wants its socket set up in its own way.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// sessionSettings makes two sessions write one value as one text, whatever the role, the database or the environment
// says, and keeps the server from ending work that is slow on purpose. They travel in the startup packet, because that
// outranks ALTER ROLE and ALTER DATABASE and costs no round trip.
//
// search_path holds only pg_catalog: then the server's own deparsing functions (format_type, pg_get_indexdef) write
// every name of a user schema in full, and no user's function can take the place of a built-in one. The next three are
// defaults that a role may have changed and that decide how SQL and arrays are read and written; xmloption lets XML
// fragments in.
var sessionSettings = map[string]string{
	"datestyle":                           "ISO, MDY",
	"intervalstyle":                       "postgres",
	"extra_float_digits":                  "3",
	"bytea_output":                        "hex",
	"timezone":                            "UTC",
	"lc_monetary":                         "C",
	"jit":                                 "off", // compiling the plans of catalog queries takes seconds
	"client_encoding":                     "UTF8",
	"search_path":                         "pg_catalog",
	"standard_conforming_strings":         "on",
	"quote_all_identifiers":               "off",
	"array_nulls":                         "on",
	"xmloption":                           "content",
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
}

// laterSettings came with a release and would make an older server refuse the startup packet.
var laterSettings = []struct {
	major int
	sql   string
}{
	{14, "SET idle_session_timeout = 0"},
	{17, "SET transaction_timeout = 0"},
}

// readOnly is the setting by which target_session_attrs judges a server. A session that weir wants read-only for its own
// sake would be taken for a server that takes no writes, so it is opened as one that may write, and made read-only when
// the server has been judged.
const readOnly = "default_transaction_read_only"

// connectTimeout holds unless the connection string names another. It covers one host, from the dial to the first
// ReadyForQuery.
const connectTimeout = 15 * time.Second

// Connect opens a connection that the caller drives message by message. The error names the server and never the
// password; whether that is a source or a target the caller knows.
//
// A replication connection is only cut off when its context ends. On the others the server is asked to cancel as well,
// so that an abandoned statement does not go on holding locks. A walsender must not be asked: its reader gives up and
// comes back at every timeout, and each time would cancel the stream.
func Connect(ctx context.Context, e *env.Env, c *Config, opts ConnectOptions) (*pgconn.PgConn, error) {
	cfg := c.prepare(e, opts)
	conn, err := pgconn.ConnectConfig(ctx, &cfg.Config)
	if err != nil {
		return nil, c.connectError(err)
	}
	c.learn(conn)
	return conn, nil
}

// ConnectPgx opens a connection for SQL. Statements run in pgx's exec mode: one round trip, nothing prepared on the
// server, so neither a pooler that hands out another backend nor a changed table can meet a stale plan. Arguments are
// sent as text and need a cast in the SQL where their Go type does not tell enough.
func ConnectPgx(ctx context.Context, e *env.Env, c *Config, opts ConnectOptions) (*pgx.Conn, error) {
	cfg := c.prepare(e, opts)
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, c.connectError(err)
	}
	c.learn(conn.PgConn())
	return conn, nil
}

// learn notes that the only server there is was reached without TLS although that was preferred.
func (c *Config) learn(conn *pgconn.PgConn) {
	f := c.pgx.Fallbacks
	if c.pgx.TLSConfig == nil || len(f) != 1 || f[0].TLSConfig != nil || f[0].Host != c.pgx.Host || f[0].Port != c.pgx.Port {
		return
	}
	if _, encrypted := conn.Conn().(*tls.Conn); !encrypted {
		c.plain.Store(true)
	}
}

func (c *Config) prepare(e *env.Env, opts ConnectOptions) *pgx.ConnConfig {
	cfg := c.pgx.Copy()
	if c.plain.Load() {
		cfg.TLSConfig, cfg.Fallbacks = nil, nil
	}
	for name := range cfg.RuntimeParams {
		// Names of settings are not case-sensitive and a startup packet with both spellings is decided by map order.
		if _, fixed := sessionSettings[strings.ToLower(name)]; fixed {
			delete(cfg.RuntimeParams, name)
		}
	}
	maps.Copy(cfg.RuntimeParams, sessionSettings)
	maps.Copy(cfg.RuntimeParams, opts.Settings)
	if opts.AppName != "" {
		cfg.RuntimeParams["application_name"] = opts.AppName
	}
	if opts.ReadBuffer > 0 {
		cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(bufio.NewReaderSize(r, opts.ReadBuffer), w)
		}
	}
	if opts.Replication {
		cfg.RuntimeParams["replication"] = "database"
	} else {
		cfg.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
		}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	// Names are resolved where the connection is made, so that a simulated network sees both.
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if opts.Dial != nil {
			return opts.Dial(ctx, network, address)
		}
		return e.Net.DialContext(ctx, network, address)
	}
	late := ""
	if value := opts.Settings[readOnly]; value != "" && value != "off" && cfg.ValidateConnect != nil {
		cfg.RuntimeParams[readOnly] = "off"
		late = "SET " + readOnly + " = " + Literal(value)
	}
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error { return afterConnect(ctx, conn, late) }
	return cfg
}

func afterConnect(ctx context.Context, conn *pgconn.PgConn, late string) error {
	major := MajorVersion(conn.ParameterStatus("server_version"))
	var sql []string
	if late != "" {
		sql = append(sql, late)
	}
	for _, s := range laterSettings {
		if major >= s.major {
			sql = append(sql, s.sql)
		}
	}
	if len(sql) == 0 {
		return nil
	}
	_, err := conn.Exec(ctx, strings.Join(sql, "; ")).ReadAll()
	return err
}

// MajorVersion reads what a server reports as server_version: "15.18 (Debian ...)", "18beta1". It gives 0 for anything
// else.
func MajorVersion(serverVersion string) int {
	end := strings.IndexFunc(serverVersion, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(serverVersion)
	}
	n, err := strconv.Atoi(serverVersion[:end])
	if err != nil {
		return 0
	}
	return n
}

// connectError puts the driver's several lines (one for each address and each way of TLS) on one.
func (c *Config) connectError(err error) error {
	inner := err
	var ce *pgconn.ConnectError
	if errors.As(err, &ce) {
		inner = ce.Unwrap()
	}
	var lines []string
	for _, line := range strings.Split(inner.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) { // the same twice: with TLS and without
			lines = append(lines, line)
		}
	}
	// Without TLS was tried as well, and failed for a reason of its own.
	noTLS := func(line string) bool { return strings.HasSuffix(line, "server refused TLS connection") }
	if rest := slices.DeleteFunc(slices.Clone(lines), noTLS); len(rest) > 0 {
		lines = rest
	}
	return &connectErr{msg: fmt.Sprintf("connect to Postgres at %s as %s: %s", c.Server(), c.User(), strings.Join(lines, "; ")), err: err}
}

type connectErr struct {
	msg string
	err error
}

func (e *connectErr) Error() string { return e.msg }
func (e *connectErr) Unwrap() error { return e.err }

// Hinted is the text of an error of Connect, with what helps where its cause tells.
func Hinted(err error) string {
	if hint := connectHint(err); hint != "" {
		return err.Error() + "; " + hint
	}
	return err.Error()
}

func connectHint(err error) string {
	var refused *pgconn.PgError
	var dns *net.DNSError
	switch {
	case errors.As(err, &refused):
		switch refused.Code {
		case "28P01":
			return "the role's password in the URL is wrong, or the role does not exist"
		case "28000":
			if strings.Contains(refused.Message, "pg_hba.conf") {
				return "pg_hba.conf of the server has to let this role, database and address in"
			}
			return "look for the name of the role, and whether it may log in: ALTER ROLE … LOGIN"
		case "3D000":
			return "look for the name of the database in the URL; psql -l lists those of the server"
		case "53300":
			return "raise max_connections, or end connections that nobody needs"
		}
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: look for host and port, whether the server runs, and its listen_addresses"
	case errors.As(err, &dns):
		return "look for the name of the host in the URL"
	case errors.Is(err, context.DeadlineExceeded):
		return "nothing answers there: look for the address, and for a firewall in between"
	}
	return ""
}
