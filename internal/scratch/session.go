package scratch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// clientLimit bounds a statement of this package.
const clientLimit = 60 * time.Second

// Run runs statements one after another in one session and returns the rows of the last one.
func (s *Server) Run(ctx context.Context, db string, sql ...string) (rows [][]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, clientLimit)
	defer cancel()
	c, err := s.connect(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	for _, text := range sql {
		if rows, err = c.run(ctx, text); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// session is one connection of this package to a server.
type session struct {
	conn *pgconn.PgConn
	db   string
}

func (s *Server) connect(ctx context.Context, db string) (*session, error) {
	address := s.SocketURL(db)
	if s.cfg.TCPOnly {
		address = s.URL(db)
	}
	conn, err := pgconn.Connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to database %s of Postgres %s: %w", db, s.Version, err)
	}
	return &session{conn, db}, nil
}

func (c *session) close(ctx context.Context) error { return c.conn.Close(ctx) }

// run uses the simple protocol, whose results are text.
func (c *session) run(ctx context.Context, sql string) ([][]string, error) {
	results, err := c.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("run %q in database %s: %w", sql, c.db, err)
	}
	if len(results) == 0 {
		return nil, nil
	}
	var rows [][]string
	for _, values := range results[len(results)-1].Rows {
		row := make([]string, len(values))
		for i, v := range values {
			if row[i] = string(v); v == nil {
				row[i] = "NULL"
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// DropDatabase works against whoever is still connected: it lets nobody in, throws out who is there, drops the slots
// they held and then the database. DROP DATABASE ... WITH (FORCE) is newer than version 12 and spares slots.
func (s *Server) DropDatabase(db string) error {
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	c, err := s.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	ident, text := QuoteIdent(db), quote(db)
	if _, err := c.run(ctx, "ALTER DATABASE "+ident+" ALLOW_CONNECTIONS false"); err != nil {
		return errors.Join(err, c.close(ctx))
	}
	var last error
	err = Poll(ctx, 10*time.Millisecond, func() (bool, error) {
		for _, sql := range []string{
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = " + text,
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = " + text,
			"DROP DATABASE " + ident,
		} {
			if _, last = c.run(ctx, sql); last != nil {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		err = last
	}
	return errors.Join(err, c.close(context.Background()))
}
