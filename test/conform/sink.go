package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
)

// FileSink is a sink that keeps what it publishes in a file system.
type FileSink struct {
	// New makes a sink over the place in e.FS; the suite opens and closes it.
	New func(t *testing.T, e *env.Env) dataflow.Sink
	// Changes are the rows of checkpoint c. The suite publishes 1, 2 and 3, and asks more than once.
	Changes func(c dataflow.Checkpoint) dataflow.Changes
	// Visible are the rows that an outsider sees, in any order, and Want are those of the checkpoints up to c.
	Visible func(t *testing.T, fs vfs.FS) []string
	Want    func(c dataflow.Checkpoint) []string
	// Whole: a checkpoint becomes visible in one step, so that an outsider never sees a part of it, even before the
	// sink is opened again.
	Whole bool
	// Apart: each table becomes visible by itself, so that after a crash some may have a checkpoint that others get when
	// it is published again.
	Apart bool
}

// Batches are Changes that lie in memory.
type Batches struct {
	Tables []int
	Rows   []*row.Batch
	next   int
}

// Next gives the next batch.
func (b *Batches) Next() (int, *row.Batch, error) {
	if b.next == len(b.Rows) {
		return 0, nil, io.EOF
	}
	b.next++
	return b.Tables[b.next-1], b.Rows[b.next-1], nil
}

// TestFileSink holds a sink to the contract: a checkpoint is published once however often it is asked for, Open knows the
// last one, an older generation is refused, and whatever step fails, the disk's content after a crash is that of a whole
// number of checkpoints.
func TestFileSink(t *testing.T, h FileSink) {
	t.Run("publish twice", func(t *testing.T) {
		e := withFS(vfs.NewMem())
		s := h.open(t, e, 1, 0)
		for c := dataflow.Checkpoint(1); c <= 3; c++ {
			h.publish(t, s, c)
			// Asked for again it is left alone. Other rows than before show whether anything is written.
			if err := s.Publish(context.Background(), c, h.Changes(c%3+1)); err != nil {
				t.Fatal(err)
			}
			h.sees(t, e.FS, c)
		}
		h.close(t, s)
		s = h.open(t, e, 1, 3)
		h.publish(t, s, 2)
		h.publish(t, s, 3)
		h.sees(t, e.FS, 3)
		h.close(t, s)
	})
	t.Run("an older generation", func(t *testing.T) {
		e := withFS(vfs.NewMem())
		old := h.open(t, e, 4, 0)
		h.publish(t, old, 1)
		s := h.open(t, e, 5, 1)
		if err := old.Publish(context.Background(), 2, h.Changes(2)); !errs.Is(err, errs.Fenced) {
			t.Errorf("generation 4 publishes although 5 is there: %v", err)
		}
		h.close(t, old)
		late := h.New(t, e)
		if _, err := late.Open(context.Background(), 4, 0); !errs.Is(err, errs.Fenced) {
			t.Errorf("generation 4 opens although 5 is there: %v", err)
		}
		h.close(t, late)
		h.publish(t, s, 2)
		h.sees(t, e.FS, 2)
		h.close(t, s)
	})
	t.Run("a failed source of changes", func(t *testing.T) {
		e := withFS(vfs.NewMem())
		s := h.open(t, e, 1, 0)
		h.publish(t, s, 1)
		if err := s.Publish(context.Background(), 2, &broken{h.Changes(2)}); err == nil {
			t.Error("an error of the changes is lost")
		}
		h.close(t, s)
		s = h.open(t, e, 1, 1)
		h.sees(t, e.FS, 1)
		h.publish(t, s, 2)
		h.sees(t, e.FS, 2)
		h.close(t, s)
	})
	t.Run("every step fails", func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		steps := 0
		for ; ; steps++ {
			if h.failAt(t, steps, r) {
				break
			}
		}
		if steps < 5 {
			t.Errorf("publishing has only %d steps that can fail", steps)
		}
	})
}

// failAt publishes checkpoint 2 on a disk that fails for good at its n-th operation and then loses power; it says whether
// n was beyond the last one.
func (h FileSink) failAt(t *testing.T, n int, r *rand.Rand) (beyond bool) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	broken, at := false, -1
	count := 0
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
		if at >= 0 {
			broken = broken || count == at
			count++
		}
		if broken {
			return fmt.Errorf("the disk fails at step %d", n)
		}
		return nil
	}))
	e := withFS(fs)
	s := h.open(t, e, 1, 0)
	h.publish(t, s, 1)
	at = n
	err := s.Publish(context.Background(), 2, h.Changes(2))
	if !broken && err != nil {
		t.Fatalf("without a failure: %v", err)
	}
	if broken && err == nil {
		t.Errorf("step %d fails and Publish does not say so", n)
	}
	_ = s.Close(context.Background()) // on a broken disk
	for _, percent := range []int{0, 30, 100} {
		disk := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r})
		if h.Whole {
			h.seesOneOf(t, disk, n, 1, 2)
		}
		e := withFS(disk)
		again := h.New(t, e)
		last, err := again.Open(context.Background(), 2, 1)
		if err != nil {
			t.Fatalf("step %d, %d %%: open after the crash: %v", n, percent, err)
		}
		if last < 1 || last > 2 || !broken && last != 2 {
			t.Fatalf("step %d, %d %%: open after the crash says checkpoint %d", n, percent, last)
		}
		if !h.Apart {
			h.seesOneOf(t, disk, n, last, last)
		}
		for c := last; c <= 3; c++ {
			h.publish(t, again, c)
		}
		h.sees(t, disk, 3)
		h.close(t, again)
	}
	return !broken
}

func withFS(fs vfs.FS) *env.Env {
	e := env.Real(nil)
	e.FS = fs
	return e
}

type broken struct{ dataflow.Changes }

func (b *broken) Next() (int, *row.Batch, error) {
	n, rows, err := b.Changes.Next()
	if errors.Is(err, io.EOF) {
		err = errors.New("the outbox cannot be read")
	}
	return n, rows, err
}

func (h FileSink) open(t *testing.T, e *env.Env, gen dataflow.Generation, want dataflow.Checkpoint) dataflow.Sink {
	t.Helper()
	s := h.New(t, e)
	last, err := s.Open(context.Background(), gen, want)
	if err != nil {
		t.Fatal(err)
	}
	if last != want {
		t.Fatalf("open says that checkpoint %d is published, want %d", last, want)
	}
	return s
}

func (h FileSink) publish(t *testing.T, s dataflow.Sink, c dataflow.Checkpoint) {
	t.Helper()
	if err := s.Publish(context.Background(), c, h.Changes(c)); err != nil {
		t.Fatal(err)
	}
}

func (h FileSink) close(t *testing.T, s dataflow.Sink) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func (h FileSink) sees(t *testing.T, fs vfs.FS, c dataflow.Checkpoint) {
	t.Helper()
	h.seesOneOf(t, fs, -1, c, c)
}

func (h FileSink) seesOneOf(t *testing.T, fs vfs.FS, step int, from, to dataflow.Checkpoint) {
	t.Helper()
	got := slices.Sorted(slices.Values(h.Visible(t, fs)))
	for c := from; c <= to; c++ {
		if slices.Equal(got, slices.Sorted(slices.Values(h.Want(c)))) {
			return
		}
	}
	t.Fatalf("step %d: an outsider sees %q, which is not what checkpoint %d to %d holds", step, got, from, to)
}
