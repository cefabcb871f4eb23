package rest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// TestTail: lines arrive as they come, an error ends them with its code, and who leaves ends the work behind them.
func TestTail(t *testing.T) {
	f := newFixture(t)
	left := make(chan struct{})
	more := make(chan struct{})
	f.opts.Tail = func(ctx context.Context, pipeline, view string, out func(api.TailLine) error) error {
		if view == "nobody" {
			return errs.New(errs.PipelineNotFound, "there is no view nobody")
		}
		if err := out(api.TailLine{View: &api.View{Name: view}, Pipeline: pipeline}); err != nil {
			return err
		}
		if err := out(api.TailLine{Epoch: 7, Change: "+", Row: json.RawMessage(`{"a":1}`)}); err != nil {
			return err
		}
		if err := out(api.TailLine{Epoch: 7, Complete: true}); err != nil {
			return err
		}
		select {
		case <-more:
			return errs.New(errs.SnapshotTooOld, "some are lost").WithHint("begin again")
		case <-ctx.Done():
			close(left)
			return ctx.Err()
		}
	}
	f.opts.Address = "127.0.0.1:0"
	server := New(f.env, f.opts)
	addr, err := server.Listen(f.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close(context.Background()) }()
	client, err := NewClient(f.env, ClientOptions{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Tail(f.ctx(), "", "nobody", nil); !errs.Is(err, errs.PipelineNotFound) {
		t.Errorf("a view that is not there: %v", err)
	}
	var seen []string
	enough := errors.New("enough")
	err = client.Tail(f.ctx(), "p", "v", func(l api.TailLine) error {
		b, err := json.Marshal(l)
		seen = append(seen, string(b))
		if l.Complete {
			return enough
		}
		return err
	})
	if !errors.Is(err, enough) {
		t.Errorf("it ends with %v", err)
	}
	if got := strings.Join(seen[1:], " "); got != `{"epoch":7,"change":"+","row":{"a":1}} {"epoch":7,"complete":true}` || !strings.Contains(seen[0], `"pipeline":"p"`) {
		t.Errorf("lines %v", seen)
	}
	<-left
	close(more)
	err = client.Tail(f.ctx(), "", "v", func(api.TailLine) error { return nil })
	if e, ok := errs.As(err); !ok || e.Code != errs.SnapshotTooOld || e.Hint != "begin again" {
		t.Errorf("it ends with %v", err)
	}
}
