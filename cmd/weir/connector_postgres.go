package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	cdc "github.com/weirstream/weir/cdc/postgres"
	"github.com/weirstream/weir/cdc/postgres/typed"
	"github.com/weirstream/weir/cmd/weir/mirror"
	"github.com/weirstream/weir/cmd/weir/query"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
	"github.com/weirstream/weir/sql/plan"
)

// postgresCDC is the connector of tables of a Postgres database: those of one database are read by one reader, at one
// position. installation names the slot, as for mirrors.
func postgresCDC(installation string) query.Connector {
	return query.Connector{
		Kind: plan.Kind{Source: true, Changelog: true, Upsert: true, Group: typed.Group, Check: typed.CheckOptions, Bounded: typed.Bounded},
		Source: func(m query.Make, s plan.Source) (dataflow.Source, error) {
			o, err := postgresOptions(m, s, installation)
			if err != nil {
				return nil, err
			}
			return typed.New(m.Env, o), nil
		},
		RemoveSource: func(ctx context.Context, m query.Make, s plan.Source) error {
			o, err := postgresOptions(m, s, installation)
			if err != nil {
				return err
			}
			conn, err := pg.ConnectPgx(ctx, m.Env, o.Config, pg.ConnectOptions{AppName: "weir delete"})
			if err != nil {
				return errs.New(errs.SourceUnreachable, "cannot reach source %s: %w", o.Config.Server(), err).Because(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			publication := o.Publication
			if o.KeepPublication {
				publication = ""
			}
			return cdc.Drop(ctx, conn, o.Slot, publication)
		},
	}
}

func postgresOptions(m query.Make, s plan.Source, installation string) (typed.Options, error) {
	var options []map[string]string
	for _, t := range s.Tables {
		given := m.With(t.Options)
		full := map[string]string{}
		for key := range t.Options {
			full[key] = given.Text(key, "")
		}
		options = append(options, full)
	}
	o, err := typed.FromOptions(options...)
	if err != nil {
		return o, err
	}
	name := mirror.SlotName(o.Config.Database(), installation) + fmt.Sprintf("_%06x", xxh3.HashString(m.Pipeline.Name)&0xffffff)
	if o.Slot == "" {
		o.Slot = name
	}
	if o.Publication == "" {
		o.Publication = name
	}
	for i, t := range s.Tables {
		x := typed.Table{Metadata: map[int]string{}}
		x.Schema, x.Name = typed.Named(options[i])
		for at, c := range t.Columns {
			x.Columns = append(x.Columns, t.Schema[c])
			if key, ok := t.Metadata[c]; ok {
				x.Metadata[at] = key
			}
		}
		for _, k := range t.Key {
			x.Key = append(x.Key, slices.Index(t.Columns, k))
		}
		o.Tables = append(o.Tables, x)
	}
	return o, nil
}
