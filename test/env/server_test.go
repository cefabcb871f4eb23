package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weirstream/weir/internal/scratch"
)

func TestVersionsStartAndDecode(t *testing.T) {
	for _, v := range Versions() {
		t.Run(v.String(), func(t *testing.T) {
			begin := time.Now()
			s := Postgres(t, v)
			t.Logf("Postgres %s started in %s", s.Exact(), time.Since(begin).Round(time.Millisecond))
			if got := s.Query(t, "postgres", "SHOW server_version")[0][0]; !strings.HasPrefix(got, v.String()+".") {
				t.Errorf("server_version = %s, want %s", got, v)
			}
			for name, want := range map[string]string{
				"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20",
				"max_connections": "100", "TimeZone": "UTC", "fsync": "on", "shared_buffers": "128MB",
				"listen_addresses": "127.0.0.1", "server_encoding": "UTF8",
			} {
				if got := s.Query(t, "postgres", "SHOW "+name)[0][0]; got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			s.Exec(t, "postgres",
				"CREATE TABLE item (id int PRIMARY KEY, name text)",
				"CREATE PUBLICATION p FOR TABLE item",
				"SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
				"INSERT INTO item VALUES (1, 'ann')")
			kinds := s.Query(t, "postgres", `SELECT chr(get_byte(data, 0)) FROM
				pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')`)
			if got := fmt.Sprint(kinds); got != "[[B] [R] [I] [C]]" {
				t.Errorf("messages of the slot: %s, want begin, relation, insert, commit", got)
			}
		})
	}
}

func TestURLsLeadToTheServer(t *testing.T) {
	s := Shared(t, 15)
	for _, url := range []string{s.URL("postgres"), s.SocketURL("postgres")} {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		var port int
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('port')::int").Scan(&port); err != nil {
			t.Error(err)
		}
		if port != s.Port {
			t.Errorf("%s leads to port %d, want %d", url, port, s.Port)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestKillLosesNothingCommitted(t *testing.T) {
	for _, v := range []Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := Postgres(t, v, FsyncOff())
			url := s.URL("postgres")
			s.Exec(t, "postgres", "CREATE TABLE n AS SELECT generate_series(1, 10000) AS i")
			open, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close(context.Background())
			if _, err := open.Exec(t.Context(), "BEGIN; INSERT INTO n VALUES (-1)"); err != nil {
				t.Fatal(err)
			}
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := open.Ping(t.Context()); err == nil {
				t.Error("a connection survived Kill")
			}
			if err := s.Kill(); err == nil {
				t.Error("the second Kill found a server")
			}
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
			if s.URL("postgres") != url {
				t.Errorf("URL changed to %s", s.URL("postgres"))
			}
			if got := s.Query(t, "postgres", "SELECT count(*), min(i) FROM n")[0]; got[0] != "10000" || got[1] != "1" {
				t.Errorf("count and minimum after recovery: %v, want the 10000 committed rows only", got)
			}
			if log := s.LogTail(50); !strings.Contains(log, "was not properly shut down") {
				t.Errorf("no crash recovery in the log:\n%s", log)
			}
		})
	}
}

func TestStopModes(t *testing.T) {
	s := Postgres(t, 15, FsyncOff())
	s.Exec(t, "postgres", "CREATE TABLE n AS SELECT 1 AS i")
	for _, mode := range []StopMode{Smart, Fast, Immediate} {
		if err := s.Restart(mode); err != nil {
			t.Fatal(err)
		}
		recovered := strings.Contains(s.LogTail(8), "automatic recovery in progress")
		if recovered != (mode == Immediate) {
			t.Errorf("mode %d: recovered is %t\n%s", mode, recovered, s.LogTail(8))
		}
		if got := s.Query(t, "postgres", "SELECT i FROM n"); len(got) != 1 {
			t.Errorf("mode %d: rows %v", mode, got)
		}
	}
	if err := s.Start(); err == nil {
		t.Error("Start of a running server succeeded")
	}
}

func TestStartReportsTheLog(t *testing.T) {
	_, err := startTemporary(t.Context(), 15, makeConfig([]Option{WithSetting("wal_level", "nonsense")}))
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "wal_level"`) {
		t.Fatalf("error %v does not say what the server objects to", err)
	}
	if _, err := startTemporary(t.Context(), 11, Config{}); err == nil || !strings.Contains(err.Error(), "12 to 18") {
		t.Fatalf("error %v does not say which versions there are", err)
	}
}

func TestTLSAndSCRAM(t *testing.T) {
	for _, v := range []Version{12, 15, 18} {
		t.Run(v.String(), func(t *testing.T) {
			s := Postgres(t, v, FsyncOff(), WithTLS(), WithSuperuserPassword("it's secret"), WithPassword("weir", "pa ss"))
			for _, role := range []string{"postgres", "weir"} {
				conn, err := pgx.Connect(t.Context(), s.URLFor(role, s.Addr(), "postgres"))
				if err != nil {
					t.Fatal(err)
				}
				var encrypted bool
				var who string
				err = conn.QueryRow(t.Context(),
					"SELECT ssl, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted, &who)
				if err != nil || !encrypted || who != role {
					t.Errorf("role %s: logged in as %q, encrypted %t, error %v", role, who, encrypted, err)
				}
				if err := conn.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			stored := s.Query(t, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'weir'")[0][0]
			if !strings.HasPrefix(stored, "SCRAM-SHA-256$") {
				t.Errorf("stored password is %.14s...", stored)
			}
			good := s.URLFor("weir", s.Addr(), "postgres")
			refused(t, strings.Replace(good, "pa%20ss", "wrong", 1), "28P01")
			refused(t, strings.Replace(good, "sslmode=verify-full", "sslmode=disable", 1), "28000")
			if _, err := pgx.Connect(t.Context(), strings.Replace(good, "127.0.0.1", "127.0.0.2", 1)); err == nil {
				t.Error("connected to an address that is not in the certificate")
			}
		})
	}
}

func refused(t *testing.T, url, code string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != code {
		t.Errorf("connect with %s: error %v, want code %s", url, err, code)
	}
	if conn != nil {
		conn.Close(t.Context())
	}
}

func TestHBAAndTCPOnly(t *testing.T) {
	s := Postgres(t, 15, FsyncOff(), WithTCPOnly(), WithHBA("host template1 all 127.0.0.1/32 reject"))
	refused(t, s.URL("template1"), "28000")
	if got := s.Query(t, "postgres", "SELECT 1")[0][0]; got != "1" {
		t.Errorf("got %s", got)
	}
	if sockets, _ := filepath.Glob(filepath.Join(s.Dir, ".s.PGSQL.*")); len(sockets) > 0 {
		t.Errorf("there is a socket: %v", sockets)
	}
}

func TestServersAreDifferent(t *testing.T) {
	a, b := Shared(t, 18), Postgres(t, 18, FsyncOff())
	const identity = "SELECT system_identifier FROM pg_control_system()"
	if x, y := a.Query(t, "postgres", identity), b.Query(t, "postgres", identity); x[0][0] == y[0][0] {
		t.Errorf("two servers have system identifier %s", x[0][0])
	}
	if a.Port == b.Port || a.Dir == b.Dir {
		t.Errorf("two servers share port %d or directory %s", a.Port, a.Dir)
	}
}

func TestStandby(t *testing.T) {
	cases := []struct {
		version Version
		opts    []Option
	}{
		{12, []Option{WithTLS(), WithSuperuserPassword(`it's`)}},
		{15, nil},
		{18, nil},
	}
	for _, c := range cases {
		t.Run(c.version.String(), func(t *testing.T) {
			primary := Postgres(t, c.version, append(c.opts, FsyncOff())...)
			primary.Exec(t, "postgres", "CREATE TABLE n AS SELECT 1 AS i")
			standby := primary.Standby(t, WithSetting("hot_standby_feedback", "on"))
			primary.Exec(t, "postgres", "INSERT INTO n VALUES (2)")
			standby.WaitReplayed(t, primary)
			got := standby.Query(t, "postgres", "SELECT count(*), pg_is_in_recovery() FROM n")[0]
			if got[0] != "2" || got[1] != "t" {
				t.Errorf("rows on the standby, in recovery: %v", got)
			}
			reports := primary.Query(t, "postgres", "SELECT application_name, state FROM pg_stat_replication")
			if got := fmt.Sprint(reports); got != "[["+standby.Name+" streaming]]" {
				t.Errorf("the primary sees %s", got)
			}
			if err := primary.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := standby.Promote(); err != nil {
				t.Fatal(err)
			}
			standby.Exec(t, "postgres", "INSERT INTO n VALUES (3)")
			if got := standby.Query(t, "postgres", "SELECT count(*) FROM n")[0][0]; got != "3" {
				t.Errorf("rows after promotion: %s", got)
			}
		})
	}
}

func TestStartPostgresKeepsItsData(t *testing.T) {
	dir := filepath.Join(TempDir(t), "demo")
	cfg := Config{FsyncOff: true, Logins: []Login{{User: "weir", Password: "pw"}}}
	for round := range 2 {
		s, err := StartPostgres(t.Context(), 15, dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := StartPostgres(t.Context(), 15, dir, cfg); !errors.Is(err, scratch.ErrLocked) {
			t.Errorf("a second server in the directory: error %v, want ErrLocked", err)
		}
		s.Exec(t, "postgres", "CREATE TABLE IF NOT EXISTS n (i int)", fmt.Sprintf("INSERT INTO n VALUES (%d)", round))
		if got := s.Query(t, "postgres", "SELECT count(*) FROM n")[0][0]; got != fmt.Sprint(round+1) {
			t.Errorf("round %d: %s rows", round, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := StartPostgres(t.Context(), 18, dir, cfg)
	if err == nil || !strings.Contains(err.Error(), "data of Postgres 15") {
		t.Errorf("another version in the directory: error %v", err)
	}
}

func TestSharedDatabasesAreDropped(t *testing.T) {
	s := Shared(t, 15)
	if Shared(t, 15) != s {
		t.Fatal("the second call started another server")
	}
	if err := s.Stop(Fast); !errors.Is(err, errShared) {
		t.Errorf("Stop: %v, want errShared", err)
	}
	if err := s.Kill(); !errors.Is(err, errShared) {
		t.Errorf("Kill: %v, want errShared", err)
	}
	var names []string
	t.Run("use", func(t *testing.T) {
		for range 2 {
			url := s.CreateDatabase(t, "orders")
			names = append(names, DatabaseOf(t, url))
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			// Closed only after the cleanup of CreateDatabase, which has to manage with a client still there.
			defer t.Cleanup(func() { conn.Close(context.Background()) })
		}
		s.Exec(t, names[0], fmt.Sprintf("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')", names[0]))
	})
	if names[0] == names[1] {
		t.Errorf("two databases are named %s", names[0])
	}
	left := s.Query(t, "postgres", `SELECT datname::text FROM pg_database WHERE datname LIKE 'orders%'
		UNION ALL SELECT slot_name::text FROM pg_replication_slots`)
	if len(left) > 0 {
		t.Errorf("left after the test: %v", left)
	}
}

func TestTempDirIsReadableByTheServer(t *testing.T) {
	dir := TempDir(t)
	file := filepath.Join(dir, "rows.csv")
	if err := os.WriteFile(file, []byte("1\n2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := Shared(t, 15)
	db := DatabaseOf(t, s.CreateDatabase(t, "copy"))
	s.Exec(t, db, "CREATE TABLE n (i int)", fmt.Sprintf("COPY n FROM '%s'", file))
	if got := s.Query(t, db, "SELECT sum(i), NULL FROM n")[0]; got[0] != "3" || got[1] != "NULL" {
		t.Errorf("got %v", got)
	}
}
