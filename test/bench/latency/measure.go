package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/test/bench/internal/lab"
	"github.com/weirstream/weir/test/bench/internal/proc"
	testenv "github.com/weirstream/weir/test/env"
)

// result is what a run came to.
type result struct {
	latencyMS []float64 // of each transaction
	rate      int
	cores     float64 // that weir took
	reads     int
}

// seen is how far the view was at a moment.
type seen struct {
	id int64
	at time.Time
}

// measure runs a server and weir, and gives the latency of each row.
func measure(ctx context.Context, f flags) (r result, err error) {
	dir, err := os.MkdirTemp("", "weir-latency-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user if the benchmark runs as root
		return r, err
	}
	server, err := testenv.StartPostgres(ctx, 15, filepath.Join(dir, "source"), testenv.Config{Settings: lab.Settings(), FsyncOff: true})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	source, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return r, err
	}
	defer source.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{
		`CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL)`,
		`CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, amount numeric(10, 2) NOT NULL, at timestamptz NOT NULL)`,
		`INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(0, 9999) i`,
		`CREATE PROCEDURE work(rate int, transactions int) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
	ahead double precision;
BEGIN
	FOR i IN 1..transactions LOOP
		INSERT INTO orders VALUES (i, i * 7919 % 10000, i % 1000 / 10.0, clock_timestamp());
		COMMIT;
		ahead := i::double precision / rate - extract(epoch FROM clock_timestamp() - began);
		IF ahead > 0.0005 THEN
			PERFORM pg_sleep(ahead);
		END IF;
	END LOOP;
END $$`,
	} {
		if _, err := source.Exec(ctx, sql); err != nil {
			return r, err
		}
	}
	cmd, err := startWeir(f, dir, server.URL("postgres"))
	if err != nil {
		return r, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err = errors.Join(err, cmd.Wait())
	}()
	reader, err := readerOf(ctx, dir)
	if err != nil {
		return r, err
	}
	defer reader.Close(context.WithoutCancel(ctx))

	total := f.rate * (f.seconds + int(warmUp/time.Second))
	written := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := source.Exec(ctx, `CALL work($1::int, $2::int)`, pgx.QueryExecModeSimpleProtocol, f.rate, total)
		written <- err
	}()
	var log []seen
	cpu := time.Duration(0)
	for last := int64(0); last < int64(total); {
		var id int64
		if err := reader.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM newest`).Scan(&id); err != nil {
			return r, err
		}
		now := time.Now()
		if cpu == 0 && now.Sub(began) >= warmUp {
			if cpu, err = proc.CPU(cmd.Process.Pid); err != nil {
				return r, err
			}
		}
		r.reads++
		if id > last {
			last = id
			log = append(log, seen{id, now})
		}
		if now.Sub(began) > 4*time.Duration(f.seconds)*time.Second+time.Minute {
			return r, fmt.Errorf("after %s the view has %d of %d orders", now.Sub(began), last, total)
		}
		if err := sleep(ctx, 300*time.Microsecond); err != nil {
			return r, err
		}
	}
	if err := <-written; err != nil {
		return r, err
	}
	took := time.Since(began)
	r.rate = int(float64(total) / took.Seconds())
	after, err := proc.CPU(cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	r.cores = (after - cpu).Seconds() / (took - warmUp).Seconds()
	rows, err := source.Query(ctx, `SELECT id, at FROM orders WHERE id > $1 ORDER BY id`, f.rate*int(warmUp/time.Second))
	if err != nil {
		return r, err
	}
	var id int64
	var at time.Time
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
		for log[n].id < id {
			n++
		}
		r.latencyMS = append(r.latencyMS, float64(log[n].at.Sub(at).Microseconds())/1000)
		return nil
	})
	return r, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func startWeir(f flags, dir, url string) (*exec.Cmd, error) {
	with := func(table string) string {
		return fmt.Sprintf("WITH ('connector' = 'postgres-cdc', 'url' = '%s', 'table-name' = '%s')", url, table)
	}
	sql := f.set + `
CREATE TABLE customers (id INT, name STRING, PRIMARY KEY (id) NOT ENFORCED) ` + with("customers") + `;
CREATE TABLE orders (id BIGINT, customer INT, amount DECIMAL(10, 2), PRIMARY KEY (id) NOT ENFORCED) ` + with("orders") + `;
CREATE MATERIALIZED VIEW joined AS SELECT o.id, o.amount, c.name FROM orders o JOIN customers c ON o.customer = c.id;
CREATE MATERIALIZED VIEW newest AS SELECT MAX(id) AS id FROM joined;
`
	file := filepath.Join(dir, "latency.sql")
	if err := os.WriteFile(file, []byte(sql), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "weir.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(f.weir, "run", file, "--state", filepath.Join(dir, "state"), "--http-addr", "127.0.0.1:0", "--pg-addr", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// readerOf connects to weir when the first copy can be read.
func readerOf(ctx context.Context, dir string) (conn *pgx.Conn, err error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for range 600 {
		<-again.C
		var b []byte
		if b, err = os.ReadFile(filepath.Join(dir, "state", "endpoints.json")); err != nil {
			continue
		}
		var at struct {
			PG string `json:"pg"`
		}
		if err = json.Unmarshal(b, &at); err != nil || at.PG == "" {
			continue
		}
		if conn, err = pgx.Connect(ctx, "postgres://weir@"+at.PG+"/weir"); err != nil {
			continue
		}
		var id int64
		if err = conn.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM newest`).Scan(&id); err == nil {
			return conn, nil
		}
		_ = conn.Close(ctx)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "weir.log"))
	return nil, fmt.Errorf("the view cannot be read: %w\n%s", err, log)
}
