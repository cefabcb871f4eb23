package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/secrets"
)

// TestAddedStatementsAreSealed: a password in a statement that a session adds is a reference in what is stored, and one
// that is sealed already stays what it is.
func TestAddedStatementsAreSealed(t *testing.T) {
	store := secrets.Open(env.Real(slog.New(slog.DiscardHandler)), secrets.Options{Dir: t.TempDir(), Getenv: func(string) (string, bool) { return "", false }})
	q := api.QuerySpec{Name: "weir", Added: []string{"create table far (id int) with ('connector' = 'postgres-cdc', 'password' = 'hidden words')", "CREATE VIEW v AS SELECT * FROM far"}}
	sealed, err := sealQuery(q, store)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(sealed.Added, "\n")
	if strings.Contains(all, "hidden") || !strings.Contains(all, "${secret:") || !strings.Contains(all, "CREATE VIEW v") {
		t.Errorf("stored is\n%s", all)
	}
	again, err := sealQuery(sealed, store)
	if err != nil || strings.Join(again.Added, "\n") != all {
		t.Errorf("sealed again it is\n%v %v", again.Added, err)
	}
	if q.Added[0] == sealed.Added[0] {
		t.Error("what was given was changed")
	}
}
