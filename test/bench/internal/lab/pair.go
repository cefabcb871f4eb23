// Package lab promises two Postgres servers that every contender finds in the same state: a source with freshly made
// tables, an empty target, both checkpointed, and nothing left at the source that a previous contender was reading.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	testenv "github.com/weirstream/weir/test/env"
)

// The databases. The target's is made anew for every turn; both names are the same for all contenders, so that no
// cache, plan or file is warmer for one of them.
const (
	SourceDB = "bench"
	TargetDB = "replica"
)

// Settings are those of both servers. Without automatic vacuum and with checkpoints only where the benchmark asks for
// them, a turn does not pay for what an earlier one left behind.
func Settings() map[string]string {
	return map[string]string{
		"shared_buffers":            "1GB",
		"autovacuum":                "off",
		"max_wal_size":              "8GB",
		"checkpoint_timeout":        "1h",
		"max_locks_per_transaction": "1024",
	}
}

// A Pair is a source and a target server on this machine, reached over TCP by the contenders and over Unix sockets by
// the benchmark itself.
type Pair struct {
	Source, Target *testenv.Server

	dir       string
	temporary bool
}

// Start starts both servers below dir, or below a temporary directory that Close deletes if dir is empty.
func Start(ctx context.Context, v testenv.Version, dir string) (_ *Pair, err error) {
	p := &Pair{dir: dir}
	if dir == "" {
		if p.dir, err = os.MkdirTemp("", "weir-bench-"); err != nil {
			return nil, err
		}
		p.temporary = true
		// MkdirTemp lets only its maker in; the servers run as another user if the benchmark runs as root.
		if err := os.Chmod(p.dir, 0o755); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	cfg := testenv.Config{Settings: Settings()}
	if p.Source, err = testenv.StartPostgres(ctx, v, filepath.Join(p.dir, "source"), cfg); err != nil {
		return nil, fmt.Errorf("start the source: %w", err)
	}
	if p.Target, err = testenv.StartPostgres(ctx, v, filepath.Join(p.dir, "target"), cfg); err != nil {
		return nil, fmt.Errorf("start the target: %w", err)
	}
	return p, nil
}

// Close ends the servers.
func (p *Pair) Close() error {
	var errs []error
	for _, s := range []*testenv.Server{p.Target, p.Source} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if p.temporary {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}

// Dir holds the servers' directories; a contender may put its own beside them.
func (p *Pair) Dir() string { return p.dir }

// ConnectSource and ConnectTarget open sessions of the benchmark itself.
func (p *Pair) ConnectSource(ctx context.Context) (*Session, error) {
	return connect(ctx, p.Source, SourceDB)
}

// ConnectTarget: see ConnectSource.
func (p *Pair) ConnectTarget(ctx context.Context) (*Session, error) {
	return connect(ctx, p.Target, TargetDB)
}

// RenewSource makes the source's database anew, with these tables.
func (p *Pair) RenewSource(ctx context.Context, tables []Table) error {
	if err := p.Clear(ctx); err != nil {
		return err
	}
	if err := renew(ctx, p.Source, SourceDB); err != nil {
		return err
	}
	s, err := p.ConnectSource(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Exec(ctx, "SET synchronous_commit = off"); err != nil {
		return err
	}
	for _, t := range tables {
		if err := s.Exec(ctx, t.create(), t.fill(1, t.Rows)); err != nil {
			return fmt.Errorf("fill table %s of the source: %w", t.Name, err)
		}
	}
	if err := s.Exec(ctx, procedures); err != nil {
		return err
	}
	// As automatic vacuum would leave tables that have been there for a while: with statistics and hint bits.
	return s.Exec(ctx, "VACUUM (ANALYZE)")
}

// RenewTarget makes the target's database anew and empty.
func (p *Pair) RenewTarget(ctx context.Context) error { return renew(ctx, p.Target, TargetDB) }

func renew(ctx context.Context, server *testenv.Server, db string) error {
	s, err := connect(ctx, server, "postgres")
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Exec(ctx, "DROP DATABASE IF EXISTS "+db+" WITH (FORCE)", "CREATE DATABASE "+db)
}

// clearLimit bounds how long a reader that was cut off may take to let go of its slot.
const clearLimit = time.Minute

// Clear removes every slot of the source and every publication of its database. A slot that stays holds the log of all
// later turns, and a reader that stays decodes it.
func (p *Pair) Clear(ctx context.Context) error {
	s, err := connect(ctx, p.Source, "postgres")
	if err != nil {
		return err
	}
	defer s.Close()
	limited, cancel := context.WithTimeout(ctx, clearLimit)
	defer cancel()
	err = Poll(limited, 10*time.Millisecond, func() (bool, error) {
		err := s.Exec(limited, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL")
		if err != nil {
			return false, err
		}
		// A slot can be taken again between being listed and being dropped; the next round gets it.
		dropped := s.Exec(limited, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
		left, err := s.Int(limited, "SELECT count(*) FROM pg_replication_slots")
		return left == 0 && dropped == nil, err
	})
	if err != nil {
		return fmt.Errorf("drop the slots of the source: %w", err)
	}
	there, err := s.Int(ctx, "SELECT count(*) FROM pg_database WHERE datname = $1", SourceDB)
	if err != nil || there == 0 {
		return err
	}
	db, err := p.ConnectSource(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	publications, err := db.Texts(ctx, "SELECT quote_ident(pubname) FROM pg_publication")
	if err != nil {
		return err
	}
	for _, name := range publications {
		if err := db.Exec(ctx, "DROP PUBLICATION "+name); err != nil {
			return err
		}
	}
	return nil
}

// Checkpoint makes both servers write down what they have in memory, so that no turn pays for what came before it.
func (p *Pair) Checkpoint(ctx context.Context) error {
	for _, server := range []*testenv.Server{p.Source, p.Target} {
		s, err := connect(ctx, server, "postgres")
		if err != nil {
			return err
		}
		err = s.Exec(ctx, "CHECKPOINT")
		s.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Detached waits until nobody reads a slot of the source.
func (p *Pair) Detached(ctx context.Context) error {
	s, err := p.ConnectSource(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return Poll(ctx, 10*time.Millisecond, func() (bool, error) {
		active, err := s.Int(ctx, "SELECT count(*) FROM pg_replication_slots WHERE active")
		return active == 0, err
	})
}

// Readers are the processes of the source that send its log; Writers those of the target that work for a contender,
// whether they serve a client or are the target's own apply workers.
func (p *Pair) Readers(ctx context.Context) ([]int, error) {
	s, err := p.ConnectSource(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Ints(ctx, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'")
}

// Writers: see Readers.
func (p *Pair) Writers(ctx context.Context) ([]int, error) {
	s, err := p.ConnectTarget(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Ints(ctx, `SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name <> $2
		AND backend_type IN ('client backend', 'logical replication worker')`, TargetDB, applicationName)
}

// Shown lists the settings a reader of the report has to know, as the servers themselves state them.
func (p *Pair) Shown(ctx context.Context) (string, error) {
	s, err := connect(ctx, p.Target, "postgres")
	if err != nil {
		return "", err
	}
	defer s.Close()
	var shown []string
	for _, name := range []string{"server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "wal_level",
		"autovacuum", "max_wal_size", "checkpoint_timeout", "max_locks_per_transaction", "logical_decoding_work_mem",
		"max_logical_replication_workers", "max_sync_workers_per_subscription", "wal_retrieve_retry_interval"} {
		value, err := s.Texts(ctx, "SELECT current_setting($1)", name)
		if err != nil {
			return "", err
		}
		shown = append(shown, name+"="+value[0])
	}
	return strings.Join(shown, " "), nil
}

// Poll asks until the answer is yes, an error, or ctx ends.
func Poll(ctx context.Context, every time.Duration, ask func() (bool, error)) error {
	for {
		if yes, err := ask(); yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(every):
		}
	}
}
