package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	testenv "github.com/weirstream/weir/test/env"
)

// applicationName tells the benchmark's sessions from those of the contenders.
const applicationName = "weir-bench"

// A Session is one connection of the benchmark, over a Unix socket. Statements with arguments are prepared once.
type Session struct {
	conn *pgx.Conn
	db   string
}

func connect(ctx context.Context, server *testenv.Server, db string) (*Session, error) {
	conn, err := pgx.Connect(ctx, server.SocketURL(db)+"&application_name="+applicationName)
	if err != nil {
		return nil, fmt.Errorf("connect to database %s on port %d: %w", db, server.Port, err)
	}
	return &Session{conn, db}, nil
}

// Close ends the session. It is called when there is nothing more to learn, so an error would change nothing.
func (s *Session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// Exec runs statements one after another, each in a transaction of its own.
func (s *Session) Exec(ctx context.Context, sql ...string) error {
	for _, text := range sql {
		if _, err := s.conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
			return fmt.Errorf("run %q in database %s: %w", short(text), s.db, err)
		}
	}
	return nil
}

func short(sql string) string {
	if len(sql) > 120 {
		return sql[:120] + "…"
	}
	return sql
}

// Do runs one prepared statement.
func (s *Session) Do(ctx context.Context, sql string, args ...any) error {
	if _, err := s.conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("run %q in database %s: %w", short(sql), s.db, err)
	}
	return nil
}

func collect[T any](ctx context.Context, s *Session, sql string, args []any) ([]T, error) {
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("ask %q in database %s: %w", short(sql), s.db, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		return nil, fmt.Errorf("ask %q in database %s: %w", short(sql), s.db, err)
	}
	return out, nil
}

// Int is the one number that a query gives; no row is 0.
func (s *Session) Int(ctx context.Context, sql string, args ...any) (int64, error) {
	all, err := collect[int64](ctx, s, sql, args)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return all[0], nil
}

// Ints is a column of numbers.
func (s *Session) Ints(ctx context.Context, sql string, args ...any) ([]int, error) {
	return collect[int](ctx, s, sql, args)
}

// Texts is a column of texts.
func (s *Session) Texts(ctx context.Context, sql string, args ...any) ([]string, error) {
	return collect[string](ctx, s, sql, args)
}
