package main

import (
	"context"
	"math"
	"strings"

	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/sinks/postgres"
	"github.com/weirstream/weir/sinks/postgres/typed"
	"github.com/weirstream/weir/sql/plan"
)

// jdbc is the connector of tables of a Postgres database that are written to, with the options of Flink's connector of
// that name: those of one database are written in one transaction.
func jdbc() query.Connector {
	return query.Connector{
		Kind: plan.Kind{Sink: true, SinkChangelog: true, Group: jdbcGroup},
		Sink: func(m query.Make, s plan.Sink) (dataflow.Sink, error) {
			o, err := jdbcSink(m, s)
			if err != nil {
				return nil, err
			}
			return typed.New(m.Env, o), nil
		},
		RemoveSink: func(ctx context.Context, m query.Make, s plan.Sink) error {
			o, err := jdbcSink(m, s)
			if err != nil {
				return err
			}
			conn, err := pg.ConnectPgx(ctx, m.Env, o.Config, pg.ConnectOptions{AppName: "weir delete"})
			if err != nil {
				return errs.New(errs.TargetUnreachable, "cannot reach %s: %w", o.Config.Server(), err).Because(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			return postgres.Forget(ctx, conn, o.Pipeline)
		},
	}
}

// jdbcGroup tells databases apart, and roles in one: each is a connection.
func jdbcGroup(o map[string]string) string {
	cfg, _, err := pg.ParseJDBC(o["url"], o["username"], "")
	if err != nil {
		return o["url"]
	}
	if o["username"] != "" {
		return o["username"] + "@" + cfg.Server()
	}
	return cfg.Server()
}

// jdbcTable is what the options of one table say.
type jdbcTable struct {
	config       *pg.Config
	schema, name string
}

func jdbcOptions(c *with.Clause) (t jdbcTable, err error) {
	name := c.Required("table-name")
	url, user, password := c.Required("url"), c.Text("username", ""), c.Text("password", "")
	// What follows tunes the driver and its way to write, read and look up, and changes nothing of the result.
	c.Text("driver", "")
	c.Duration("connection.max-retry-timeout", 0)
	c.Int("sink.buffer-flush.max-rows", 0, 0, math.MaxInt64)
	c.Duration("sink.buffer-flush.interval", 0)
	c.Int("sink.max-retries", 0, 0, math.MaxInt32)
	c.Int("sink.parallelism", 1, 1, math.MaxInt32)
	for _, key := range append(append(c.WithPrefix("scan."), c.WithPrefix("lookup.")...), c.WithPrefix("properties.")...) {
		switch key {
		case "scan.partition.column", "scan.partition.num", "scan.partition.lower-bound", "scan.partition.upper-bound", "scan.fetch-size", "scan.auto-commit",
			"lookup.cache", "lookup.cache.max-rows", "lookup.cache.ttl", "lookup.cache.caching-missing-key", "lookup.max-retries",
			"lookup.partial-cache.max-rows", "lookup.partial-cache.expire-after-write", "lookup.partial-cache.expire-after-access", "lookup.partial-cache.cache-missing-key",
			"lookup.partial-cache.caching-missing-key":
			c.Has(key)
		default:
			if strings.HasPrefix(key, "properties.") {
				c.Has(key)
			}
		}
	}
	if c.Has("url") && strings.TrimSpace(url) != "" {
		var schema string
		if t.config, schema, err = pg.ParseJDBC(url, user, password); err != nil {
			c.Fail("url", errs.From(err, errs.BadURL))
		}
		t.schema, t.name = "public", name
		if schema != "" {
			t.schema = schema
		}
		if first, second, ok := strings.Cut(name, "."); ok {
			t.schema, t.name = first, second
		}
	}
	return t, c.End("connector 'jdbc'")
}

func jdbcSink(m query.Make, s plan.Sink) (typed.Options, error) {
	o := typed.Options{Pipeline: m.Pipeline.ID, Sink: s.Name}
	for _, t := range s.Tables {
		x, err := jdbcOptions(m.With(t.Options))
		if err != nil {
			return o, err
		}
		for i := range o.Tables {
			if o.Tables[i].Schema == x.schema && o.Tables[i].Name == x.name {
				return o, errs.New(errs.SQLConnector, "tables %s and %s are one table of the database, and each would write as if it were alone", s.Tables[i].Name, t.Name).
					WithHint("write to one of them: INSERT INTO .. SELECT .. UNION ALL SELECT ..")
			}
		}
		o.Config = x.config
		o.Tables = append(o.Tables, typed.Table{Schema: x.schema, Name: x.name, Columns: t.Schema, Key: t.Key})
	}
	return o, nil
}
