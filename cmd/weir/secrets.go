package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	rest "github.com/weirstream/weir/coordinator/http"
	"github.com/weirstream/weir/internal/cli"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/secrets"
)

func (p *program) secretNames(_ context.Context, c *cli.Call) []string {
	names, _ := p.store(c, p.env(c)).List() // completion has no place to tell an error
	return names
}

// secretRecord is what may be told of a secret.
type secretRecord struct {
	Name      string `json:"name"`
	Reference string `json:"reference"`
}

// localOnly refuses --addr: a secret must not travel to another machine by a command that could have meant this one.
func localOnly(c *cli.Call) error {
	if c.Given("addr") {
		return errs.New(errs.BadFlag, "%s works on the state directory of this machine, not on --addr", c.Path).WithHint("name the directory with --state")
	}
	return nil
}

func (p *program) secretsSet(_ context.Context, c *cli.Call) error {
	if err := localOnly(c); err != nil {
		return err
	}
	var text string
	if c.InTerminal {
		fmt.Fprintf(c.Err, "value of %s: ", c.Arg(0))
		var err error
		if text, err = c.ReadSecret(); err != nil {
			return fmt.Errorf("read the value: %w", err)
		}
	} else {
		b, err := io.ReadAll(io.LimitReader(c.In, secrets.MaxValueBytes+2))
		if err != nil {
			return fmt.Errorf("read the value: %w", err)
		}
		// One line end is the shell's, not the secret's.
		text = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	if err := p.store(c, p.env(c)).Set(c.Arg(0), secrets.NewValue(text)); err != nil {
		return err
	}
	c.Note("stored; write %s where it is needed", secrets.Reference(c.Arg(0)))
	return nil
}

func (p *program) secretsList(_ context.Context, c *cli.Call) error {
	if err := localOnly(c); err != nil {
		return err
	}
	names, err := p.store(c, p.env(c)).List()
	if err != nil {
		return err
	}
	var rows []secretRecord
	for _, n := range names {
		rows = append(rows, secretRecord{n, secrets.Reference(n)})
	}
	return cli.PrintList(c, cli.List[secretRecord]{
		Rows: rows, Name: func(r secretRecord) string { return r.Name }, Empty: "no secrets in " + state(c),
		Columns: []cli.Column[secretRecord]{
			{Head: "NAME", Cell: func(r secretRecord) string { return r.Name }},
			{Head: "REFERENCE", Cell: func(r secretRecord) string { return r.Reference }},
		},
	})
}

func (p *program) secretsDelete(ctx context.Context, c *cli.Call) error {
	if err := localOnly(c); err != nil {
		return err
	}
	e := p.env(c)
	store := p.store(c, e)
	name := c.Arg(0)
	if _, err := store.Get(name); err != nil {
		return err
	}
	effect := fmt.Sprintf("deletes the secret %s; pipelines that refer to it cannot connect any more", name)
	if users := p.usersOf(ctx, c, e, name); len(users) > 0 {
		effect = fmt.Sprintf("deletes the secret %s; it is used by %s, which cannot connect any more", name, strings.Join(users, ", "))
		if c.Bool("yes") {
			c.Note("%s", effect)
		}
	}
	if err := c.Confirm(effect); err != nil {
		return err
	}
	return store.Delete(name)
}

// usersOf names the pipelines that refer to a secret. Without a weir that runs on the state directory nobody can say.
func (p *program) usersOf(ctx context.Context, c *cli.Call, e *env.Env, name string) []string {
	cl, err := p.dial(e, rest.ClientOptions{State: state(c), Named: true})
	if err != nil {
		return nil
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	views, err := cl.Pipelines(ctx)
	if err != nil {
		return nil
	}
	var users []string
	for _, v := range views {
		if slices.Contains(secretsIn(v.Pipeline), name) {
			users = append(users, v.Name)
		}
	}
	return users
}
