package conform_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/pg"
	sink "github.com/weirstream/weir/sinks/postgres"
	"github.com/weirstream/weir/test/conform"
	testenv "github.com/weirstream/weir/test/env"
)

// batchBytes makes the Target send long before a cut.
const batchBytes = 16 << 10

func TestPostgresTarget(t *testing.T) {
	for _, sync := range []string{"off", "on"} {
		t.Run("synchronous_commit="+sync, func(t *testing.T) {
			conform.Target(t, func(t *testing.T) conform.TargetHarness { return targetHarness(t, sync) })
		})
	}
}

func targetHarness(t *testing.T, sync string) conform.TargetHarness {
	server := testenv.Shared(t, 15, testenv.FsyncOff())
	url := server.CreateDatabase(t, "target")
	db := &database{t: t, conn: connect(t, url)}
	proxy := testenv.NewProxy(t, server.Addr())
	throughProxy := parse(t, server.URLFor("postgres", proxy.Addr(), testenv.DatabaseOf(t, url)))
	memory := sink.NewMemory()
	return conform.TargetHarness{
		BatchBytes: batchBytes,
		New: func(testing.TB) dataflow.Target {
			return sink.New(env.Real(nil), sink.Options{
				Config: throughProxy, Pipeline: "p", SyncCommit: sync, BatchBytes: batchBytes, Memory: memory,
				Route: func(schema, name string) (string, string, bool) { return schema, name, true },
			})
		},
		Create: db.create,
		Look:   db.view,
		LoseReply: func(testing.TB) {
			proxy.DropReplyAfter(func(client []byte) bool { return bytes.Contains(client, []byte("\x00commit\x00")) })
		},
		Cut: func(testing.TB) { proxy.Cut() },
	}
}

func TestPostgresSource(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		t.Run(fmt.Sprintf("writeAhead=%t", ahead), func(t *testing.T) {
			// A transaction is sent while it is open once it holds this much.
			server := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("logical_decoding_work_mem", "64kB"))
			conform.Source(t, func(t *testing.T) conform.SourceHarness { return sourceHarness(t, server, ahead) })
		})
	}
}

func sourceHarness(t *testing.T, server *testenv.Server, ahead bool) conform.SourceHarness {
	url := server.CreateDatabase(t, "source")
	db := &database{t: t, conn: connect(t, url)}
	slot := "weir_" + testenv.DatabaseOf(t, url)
	t.Cleanup(func() {
		if err := cdc.Drop(context.Background(), db.conn, slot, ""); err != nil {
			t.Error(err)
		}
	})
	lsn := func(text string) pg.LSN {
		v, err := pg.ParseLSN(text)
		if err != nil {
			t.Error(err)
		}
		return v
	}
	return conform.SourceHarness{
		New: func(testing.TB) dataflow.Source {
			return cdc.New(env.Real(nil), cdc.Options{
				Config: parse(t, url), Slot: slot, Publication: "weir", WriteAhead: ahead,
				Includes:   func(schema, _ string) bool { return schema == "public" },
				RangeBytes: 8 << 10, HeartbeatPeriod: 200 * time.Millisecond, StatusPeriod: 200 * time.Millisecond,
			})
		},
		Create: db.create,
		Begin:  func(t testing.TB) conform.Transaction { return db.begin(t, url) },
		Look:   func(t testing.TB) map[string][]conform.Row { return db.view(t).Rows },
		Slot: func(t testing.TB) string {
			return db.one(t, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '"+slot+"'")
		},
		Passed: func(a, b string) bool { return lsn(a) >= lsn(b) },
		MoveSlot: func(t testing.TB) {
			// The reader has left; its walsender may not have noticed.
			db.exec(t, "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '"+slot+"' AND active) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$")
			db.one(t, "SELECT end_lsn::text FROM pg_replication_slot_advance('"+slot+"', pg_current_wal_lsn())")
		},
		// The reader reports every half second, and every status period without news.
		Settled: func(t testing.TB) { db.one(t, "SELECT pg_sleep(0.8)::text") },
	}
}

func parse(t testing.TB, url string) *pg.Config {
	cfg, err := pg.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func connect(t testing.TB, url string) *pgx.Conn {
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// database is the outsider's connection.
type database struct {
	t      *testing.T
	mu     sync.Mutex
	conn   *pgx.Conn
	tables []conform.Table
	idle   []*pgx.Conn // connections of ended transactions
}

func (d *database) create(t testing.TB, tables ...conform.Table) {
	d.tables = tables
	for _, table := range tables {
		d.exec(t, table.DDL())
	}
}

func (d *database) exec(t testing.TB, sql string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

func (d *database) one(t testing.TB, sql string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var v string
	if err := d.conn.QueryRow(context.Background(), sql).Scan(&v); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
	return v
}

// view reads everything under one snapshot.
func (d *database) view(t testing.TB) conform.View {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := conform.View{State: dataflow.State{}, Rows: map[string][]conform.Row{}}
	ctx := context.Background()
	err := pgx.BeginTxFunc(ctx, d.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for _, table := range d.tables {
			var cols []string
			for _, c := range table.Columns {
				cols = append(cols, c.Name+"::text")
			}
			rows, err := tx.Query(ctx, "SELECT "+strings.Join(cols, ", ")+" FROM public."+table.Name)
			if err != nil {
				return err
			}
			for rows.Next() {
				values, err := rows.Values()
				if err != nil {
					return err
				}
				row := conform.Row{}
				for _, x := range values {
					if x == nil {
						row = append(row, conform.Null)
					} else {
						row = append(row, x.(string))
					}
				}
				v.Rows[table.Name] = append(v.Rows[table.Name], row)
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		var ledger bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('_weir.ledger') IS NOT NULL").Scan(&ledger); err != nil || !ledger {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT key, value FROM _weir.state WHERE pipeline = 'p'`)
		if err != nil {
			return err
		}
		var key string
		var value []byte
		if _, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error { v.State[key] = bytes.Clone(value); return nil }); err != nil {
			return err
		}
		var n int64
		err = tx.QueryRow(ctx, `SELECT coalesce(max(checkpoint), 0) FROM _weir.ledger WHERE pipeline = 'p'`).Scan(&n)
		v.Checkpoint = dataflow.Checkpoint(n)
		return err
	})
	if err != nil {
		t.Errorf("look at the database: %v", err)
	}
	return v
}

// begin takes a connection for a transaction.
func (d *database) begin(t testing.TB, url string) conform.Transaction {
	d.mu.Lock()
	var conn *pgx.Conn
	if n := len(d.idle); n > 0 {
		conn, d.idle = d.idle[n-1], d.idle[:n-1]
	}
	d.mu.Unlock()
	if conn == nil {
		conn = connect(d.t, url)
	}
	tx := &transaction{t: t, db: d, conn: conn}
	tx.run("BEGIN")
	return tx
}

type transaction struct {
	t    testing.TB
	db   *database
	conn *pgx.Conn
}

func (x *transaction) run(sql string) {
	if _, err := x.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		x.t.Errorf("%.300s: %v", sql, err)
	}
}

func (x *transaction) end(sql string) {
	x.run(sql)
	x.db.mu.Lock()
	defer x.db.mu.Unlock()
	x.db.idle = append(x.db.idle, x.conn)
}

func (x *transaction) Savepoint(name string)  { x.run("SAVEPOINT " + name) }
func (x *transaction) RollbackTo(name string) { x.run("ROLLBACK TO SAVEPOINT " + name) }
func (x *transaction) Commit()                { x.end("COMMIT") }
func (x *transaction) Rollback()              { x.end("ROLLBACK") }

func literal(v string) string {
	if v == conform.Null {
		return "NULL"
	}
	return pg.Literal(v)
}

func (x *transaction) Do(changes ...conform.Change) {
	var script strings.Builder
	for _, c := range changes {
		key := c.Table.KeyColumns()
		where := func(r conform.Row) string {
			var conds []string
			for i, col := range c.Table.Columns {
				if len(key) > 0 && !col.Key {
					continue
				}
				conds = append(conds, col.Name+" IS NOT DISTINCT FROM "+literal(r[i]))
			}
			cond := strings.Join(conds, " AND ")
			if len(key) == 0 {
				return fmt.Sprintf("ctid = (SELECT ctid FROM public.%s WHERE %s LIMIT 1 FOR UPDATE SKIP LOCKED)", c.Table.Name, cond)
			}
			return cond
		}
		switch c.Op {
		case changelog.Insert:
			var values []string
			for _, v := range c.New {
				values = append(values, literal(v))
			}
			fmt.Fprintf(&script, "INSERT INTO public.%s VALUES (%s);", c.Table.Name, strings.Join(values, ", "))
		case changelog.Delete:
			fmt.Fprintf(&script, "DELETE FROM public.%s WHERE %s;", c.Table.Name, where(c.Old))
		case changelog.Update:
			var set []string
			for i, col := range c.Table.Columns {
				if c.New[i] != conform.Unsent {
					set = append(set, col.Name+" = "+literal(c.New[i]))
				}
			}
			was := c.Old
			if was == nil {
				was = c.New
			}
			fmt.Fprintf(&script, "UPDATE public.%s SET %s WHERE %s;", c.Table.Name, strings.Join(set, ", "), where(was))
		}
	}
	x.run(script.String())
}
