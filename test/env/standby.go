package testenv

import (
	"context"
	"testing"
)

// Standby starts a hot standby that streams from s, which keeps running. It has the configuration of s, changed by
// opts, and a physical slot on s under its Name.
func (s *Server) Standby(t testing.TB, opts ...Option) *Server {
	t.Helper()
	cfg := s.Config()
	for _, opt := range opts {
		opt(&cfg)
	}
	inner, err := s.StartStandby(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start a standby of Postgres %s on port %d: %v", s.Version, s.Port, err)
	}
	standby := &Server{Server: inner}
	t.Cleanup(func() {
		standby.cleanup(t)
		if s.Running() {
			// It may have been promoted, or s may be a primary no more; the slot would only hold WAL.
			if err := s.DropStandbySlot(context.Background(), inner); err != nil && s.Running() {
				t.Errorf("drop the slot of a standby: %v", err)
			}
		}
	})
	return standby
}

// WaitReplayed waits until a standby shows everything that primary had committed when it was called.
func (s *Server) WaitReplayed(t testing.TB, primary *Server) {
	t.Helper()
	lsn := primary.Query(t, "postgres", "SELECT pg_current_wal_flush_lsn()")[0][0]
	if err := s.Server.WaitReplayed(t.Context(), lsn); err != nil {
		t.Fatal(err)
	}
}
