package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/options"
)

type optionRecord struct {
	Key     string   `json:"key"`
	Value   string   `json:"value"`
	Origin  string   `json:"origin"`
	Default string   `json:"default,omitempty"`
	Type    string   `json:"type"`
	Scope   string   `json:"scope"`
	Env     string   `json:"environment"`
	Aliases []string `json:"aliases,omitempty"`
	Help    string   `json:"help"`
}

func recordOfOption(o options.Option, set options.Set) optionRecord {
	value, origin := set.Get(o.Key)
	return optionRecord{Key: o.Key, Value: value, Origin: origin, Default: o.Default, Type: o.Type(), Scope: string(o.Scope),
		Env: o.EnvName(), Aliases: o.Aliases, Help: o.Help}
}

func (p *program) configExplain(_ context.Context, c *cli.Call) error {
	o, err := options.Lookup(c.Arg(0))
	if err != nil {
		return err
	}
	set, err := p.options(c)
	if err != nil {
		return err
	}
	r := recordOfOption(o, set)
	return cli.PrintRecord(c, r, r.Key, func(w io.Writer) {
		t := cli.Table{Rows: [][]string{{"value", orDash(r.Value)}, {"from", r.Origin}, {"default", orDash(r.Default)}, {"type", r.Type},
			{"belongs to", "a " + r.Scope}, {"environment", r.Env}}}
		if len(r.Aliases) > 0 {
			t.Rows = append(t.Rows, []string{"also", join(r.Aliases)})
		}
		fmt.Fprintf(w, "%s\n%s\n\n%s", r.Key, r.Help, t.String())
	})
}

func (p *program) configList(_ context.Context, c *cli.Call) error {
	set, err := p.options(c)
	if err != nil {
		return err
	}
	var rows []optionRecord
	for _, o := range options.All() {
		rows = append(rows, recordOfOption(o, set))
	}
	return cli.PrintList(c, cli.List[optionRecord]{
		Rows: rows, Name: func(r optionRecord) string { return r.Key },
		Columns: []cli.Column[optionRecord]{
			{Head: "KEY", Cell: func(r optionRecord) string { return r.Key }},
			{Head: "VALUE", Cell: func(r optionRecord) string { return orDash(r.Value) }, Raw: func(r optionRecord) string { return r.Value }},
			{Head: "FROM", Cell: func(r optionRecord) string { return r.Origin }},
			{Head: "SCOPE", Cell: func(r optionRecord) string { return r.Scope }},
			{Head: "TYPE", Wide: true, Cell: func(r optionRecord) string { return r.Type }},
		},
	})
}

func orDash(s string) string {
	if s == "" {
		return cli.Unknown
	}
	return s
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func lower(s string) string { return strings.ToLower(s) }
