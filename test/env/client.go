package testenv

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/scratch"
)

// Exec runs statements in a database, as role postgres; one string may hold several.
func (s *Server) Exec(t testing.TB, db string, sql ...string) {
	t.Helper()
	if _, err := s.Run(context.Background(), db, sql...); err != nil {
		t.Fatal(err)
	}
}

// Query returns the rows of a query as Postgres prints them; NULL is the string NULL.
func (s *Server) Query(t testing.TB, db, sql string) [][]string {
	t.Helper()
	rows, err := s.Run(context.Background(), db, sql)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// CreateDatabase makes an empty database whose name begins with the given one and returns its URL; DatabaseOf tells the
// full name. Names are unique, so tests can share a server; on a shared server the database and its replication slots
// are dropped when the test ends.
func (s *Server) CreateDatabase(t testing.TB, name string) string {
	t.Helper()
	db := fmt.Sprintf("%s_%s", name, strings.ToLower(rand.Text()[:10]))
	s.Exec(t, "postgres", "CREATE DATABASE "+scratch.QuoteIdent(db))
	if s.shared {
		t.Cleanup(func() {
			if err := s.DropDatabase(db); err != nil {
				t.Errorf("drop database %s: %v; hint: a client of the test is still connected", db, err)
			}
		})
	}
	return s.URL(db)
}

// DatabaseOf is the name of the database in a URL.
func DatabaseOf(t testing.TB, url string) string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Database
}
