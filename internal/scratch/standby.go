package scratch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// StartStandby starts a hot standby that streams from s, which keeps running. cfg is usually that of s with changes; the
// standby gets a port of its own and a physical slot on s under its Name, which DropStandbySlot removes.
func (s *Server) StartStandby(ctx context.Context, cfg Config) (*Server, error) {
	cfg.Port = 0
	standby, err := newServer(ctx, Options{Programs: s.programs, Prepared: s.prepared, Config: cfg})
	if err != nil {
		return nil, err
	}
	standby.standby = true
	return standby.begin(ctx, func() error { return s.backup(ctx, standby) })
}

// DropStandbySlot drops the slot of a standby that has ended; it would only hold WAL.
func (s *Server) DropStandbySlot(ctx context.Context, standby *Server) error {
	_, err := s.Run(ctx, "postgres", dropSlot(standby.Name))
	return err
}

// backup copies the running primary between the two calls of the backup API, which works on every version and without
// the program pg_basebackup, which not every installation has. WAL written meanwhile comes through the slot.
func (s *Server) backup(ctx context.Context, standby *Server) (err error) {
	c, err := s.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	begin, end := "pg_backup_start('weir', true)", "pg_backup_stop(false)"
	if s.Version < 15 {
		begin, end = "pg_start_backup('weir', true, false)", "pg_stop_backup(false, false)"
	}
	for _, sql := range []string{
		fmt.Sprintf("SELECT pg_create_physical_replication_slot(%s, true)", quote(standby.Name)),
		"SELECT " + begin,
	} {
		if _, err := c.run(ctx, sql); err != nil {
			return err
		}
	}
	if err := copyTree(s.programs.account, s.dataDir(), standby.dataDir(), neededByStandby); err != nil {
		return fmt.Errorf("copy the primary: %w", err)
	}
	label, err := c.run(ctx, "SELECT labelfile FROM "+end)
	if err != nil {
		return err
	}
	standby.cfg.Settings = withPrimary(standby.cfg.Settings, s.connInfo(standby.Name), standby.Name)
	return errors.Join(
		standby.writeFile(filepath.Join(standby.dataDir(), "backup_label"), []byte(label[0][0]), 0o600),
		standby.writeFile(filepath.Join(standby.dataDir(), "standby.signal"), nil, 0o600))
}

// neededByStandby leaves out what the documentation of the backup API says to leave out (continuous archiving, section
// "Backing up the data directory"): WAL, which is streamed, slots, which belong to the primary, and what a server makes
// anew when it starts.
func neededByStandby(rel string) bool {
	switch dir, rest, _ := strings.Cut(filepath.ToSlash(rel), "/"); dir {
	case "pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp",
		"pg_subtrans":
		return rest == ""
	case "postmaster.pid", "postmaster.opts":
		return false
	}
	base := filepath.Base(rel)
	return !strings.HasPrefix(base, "pgsql_tmp") && base != "pg_internal.init"
}

func withPrimary(settings map[string]string, connInfo, slot string) map[string]string {
	all := map[string]string{"primary_conninfo": connInfo, "primary_slot_name": slot}
	for name, value := range settings {
		all[name] = value
	}
	return all
}

// connInfo is how a standby reaches s. A database is named although replication does not need one: the worker that
// copies logical slots to a standby (version 17 and later) does. The host has a name because libpq compares an address
// with a certificate only since version 15.
func (s *Server) connInfo(name string) string {
	words := []string{
		"host=localhost", "hostaddr=127.0.0.1", fmt.Sprintf("port=%d", s.Port), "user=postgres", "dbname=postgres",
		"application_name=" + name,
	}
	if s.cfg.SuperuserPassword != "" {
		words = append(words, "password='"+strings.ReplaceAll(s.cfg.SuperuserPassword, "'", `\'`)+"'")
	}
	if s.cfg.TLS {
		words = append(words, "sslmode=verify-full", "sslrootcert='"+s.CAFile+"'")
	}
	return strings.Join(words, " ")
}

func dropSlot(name string) string {
	return fmt.Sprintf("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
		quote(name))
}

// Promote makes a standby a primary and waits until it accepts writes.
func (s *Server) Promote() error {
	rows, err := s.Run(context.Background(), "postgres",
		fmt.Sprintf("SELECT pg_promote(true, %d)", int(startLimit/time.Second)))
	if err == nil && rows[0][0] != "t" {
		err = fmt.Errorf("still a standby after %s; its log ends with\n%s", startLimit, s.LogTail(10))
	}
	if err != nil {
		return fmt.Errorf("promote Postgres %s on port %d: %w", s.Version, s.Port, err)
	}
	return nil
}

// WaitReplayed waits until a standby shows everything up to a position of its primary's log.
func (s *Server) WaitReplayed(ctx context.Context, lsn string) error {
	ctx, cancel := context.WithTimeout(ctx, clientLimit)
	defer cancel()
	c, err := s.connect(ctx, "postgres")
	if err == nil {
		err = Poll(ctx, 5*time.Millisecond, func() (bool, error) {
			rows, err := c.run(ctx, fmt.Sprintf("SELECT coalesce(pg_last_wal_replay_lsn() >= '%s', false)", lsn))
			return err == nil && rows[0][0] == "t", err
		})
		err = errors.Join(err, c.close(context.Background()))
	}
	if err != nil {
		return fmt.Errorf("wait until the standby on port %d has replayed %s: %w", s.Port, lsn, err)
	}
	return nil
}
