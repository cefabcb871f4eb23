package blackhole_test

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
	"github.com/weirstream/weir/sinks/blackhole"
)

type once struct{ b *row.Batch }

func (o *once) Next() (int, *row.Batch, error) {
	if o.b == nil {
		return 0, nil, io.EOF
	}
	b := o.b
	o.b = nil
	return 1, b, nil
}

func TestCounts(t *testing.T) {
	s := blackhole.New(blackhole.Options{Tables: 2, Tasks: 3})
	var group sync.WaitGroup
	for task := range 3 {
		group.Go(func() {
			for range 1000 {
				s.Discard(task, 0, &row.Batch{Len: 10})
				s.Discard(task, 1, &row.Batch{Len: 4, Sel: []int32{0, 2, 3}, Weights: []int64{-1, 50, 3, 1}})
			}
		})
	}
	group.Wait()
	if err := s.Publish(context.Background(), 1, &once{&row.Batch{Len: 1}}); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Count(0), (blackhole.Count{Rows: 30_000, Weight: 30_000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := s.Count(1), (blackhole.Count{Rows: 9_001, Retracted: 3_000, Weight: 9_001}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if a := testing.AllocsPerRun(10, func() { s.Discard(0, 0, &row.Batch{Len: 10}) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func TestOptions(t *testing.T) {
	if err := blackhole.ParseOptions(with.New(map[string]string{"connector": "blackhole"}, nil)); err != nil {
		t.Error(err)
	}
	if err := blackhole.ParseOptions(with.New(map[string]string{"path": "x"}, nil)); !errs.Is(err, errs.UnknownOption) {
		t.Errorf("an unknown option: %v", err)
	}
}
