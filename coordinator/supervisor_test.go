package coordinator

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

var (
	t0       = time.Unix(1700000000, 0)
	errFlaky = errors.New("connection reset")
	errUser  = errs.New(errs.SlotLost, "the slot is lost")
	errNews  = &errs.Error{Code: errs.TargetConflict, Message: "updates need the careful order", Learned: true}
)

func want(d api.Desired) wanted { return wanted{desired: d} }

func failing(err error) failure { return failure{err: err, at: t0} }

// show is how the tables below write actions.
func show(actions []action) string {
	var out []string
	for _, a := range actions {
		switch a := a.(type) {
		case mint:
			out = append(out, "mint")
		case start:
			out = append(out, fmt.Sprintf("start %d", a.gen))
		case stop:
			out = append(out, fmt.Sprintf("stop %d", a.gen))
		case remove:
			out = append(out, fmt.Sprintf("remove %d", a.gen))
		case finish:
			out = append(out, fmt.Sprintf("finish %d", a.gen))
		case cancelWork:
			out = append(out, "cancel")
		case arm:
			out = append(out, "arm "+a.delay.String())
		case disarm:
			out = append(out, "disarm")
		case reportForce:
			out = append(out, "report force")
		}
	}
	return strings.Join(out, ", ")
}

type row struct {
	ev    event
	do    string
	after state
}

func TestSupervisor(t *testing.T) {
	ok := failure{at: t0}
	stories := map[string][]row{
		"a pipeline runs, is paused and resumed": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{want(api.WantPaused), "stop 1", stopping},
			{exited{1, failing(nil)}, "", stopping}, // its end while it stops is expected
			{stopped{1}, "", idle},
			{want(api.WantRunning), "mint", minting},
			{minted{2, ok}, "start 2", starting},
			{started{2, ok}, "", running},
		},
		"what a run has learned needs no pause": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errFlaky)}, "arm 1s", waiting},
			{elapsed{}, "mint", minting},
			{minted{2, ok}, "start 2", starting},
			{started{2, ok}, "", running},
			{exited{2, failing(errNews)}, "mint", minting},
			{minted{3, ok}, "start 3", starting},
			{started{3, ok}, "", running},
			{exited{3, failing(errNews)}, "mint", minting},
			{minted{4, ok}, "start 4", starting},
			{started{4, failing(errFlaky)}, "arm 2s", waiting},
		},
		"failures back off and take a new generation": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errFlaky)}, "arm 1s", waiting},
			{elapsed{}, "mint", minting},
			{minted{2, ok}, "start 2", starting},
			{started{2, ok}, "", running},
			{exited{2, failing(errFlaky)}, "arm 2s", waiting},
			{want(api.WantRunning), "", waiting}, // the same wish again is no reason to hurry
			{elapsed{}, "mint", minting},
			{minted{0, failing(errFlaky)}, "arm 4s", waiting}, // raft did not answer
			{elapsed{}, "mint", minting},
		},
		"a minute of health forgives": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errFlaky)}, "arm 1s", waiting},
			{elapsed{}, "mint", minting},
			{minted{2, ok}, "start 2", starting},
			{started{2, ok}, "", running},
			{exited{2, failure{err: errFlaky, at: t0.Add(time.Minute)}}, "arm 1s", waiting},
		},
		"an error that needs the user waits for resume": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{exited{1, failing(errUser)}, "", failed},
			{want(api.WantRunning), "", failed},
			{elapsed{}, "", failed},
			{resumed{}, "mint", minting},
		},
		"resume shortens the back-off": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errFlaky)}, "arm 1s", waiting},
			{resumed{}, "disarm, mint", minting},
			{resumed{}, "", minting},
		},
		"a pause ends the back-off": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errFlaky)}, "arm 1s", waiting},
			{want(api.WantPaused), "disarm", idle},
			{elapsed{}, "", idle}, // the timer had fired already
		},
		"a pause overtakes the start": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{want(api.WantPaused), "cancel", starting},
			{started{1, failing(errFlaky)}, "", idle},
		},
		"a pause comes too late to cancel the start": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{want(api.WantPaused), "cancel", starting},
			{started{1, ok}, "stop 1", stopping},
			{stopped{1}, "", idle},
		},
		"a pause overtakes the generation": {
			{want(api.WantRunning), "mint", minting},
			{want(api.WantPaused), "", minting},
			{minted{0, failing(errs.New(errs.PipelineState, "paused"))}, "", idle},
		},
		"a resume arrives while it stops": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{want(api.WantPaused), "stop 1", stopping},
			{want(api.WantRunning), "", stopping},
			{stopped{1}, "mint", minting},
		},
		"a changed definition restarts": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{changed{}, "", starting},
			{started{1, ok}, "stop 1", stopping},
			{stopped{1}, "mint", minting},
			{minted{2, ok}, "start 2", starting},
			{started{2, ok}, "", running},
			{changed{}, "stop 2", stopping},
		},
		"late news of an older generation is nothing": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{changed{}, "stop 1", stopping},
			{stopped{1}, "mint", minting},
			{minted{2, ok}, "start 2", starting},
			{exited{1, failing(errFlaky)}, "", starting},
			{started{2, ok}, "", running},
			{exited{1, failing(errFlaky)}, "", running},
			{stopped{1}, "", running},
		},
		"a source that ends is not restarted": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{exited{1, ok}, "", ended},
			{want(api.WantRunning), "", ended},
			{resumed{}, "mint", minting},
		},
		"a delete stops, fences, cleans up and forgets": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{want(api.WantDeleted), "stop 1", stopping},
			{stopped{1}, "mint", minting},
			{minted{2, ok}, "remove 2", removing},
			{removed{ok}, "finish 2", finishing},
			{finished{ok}, "", gone},
		},
		"a delete is taken up again": {
			{want(api.WantDeleted), "mint", minting},
			{minted{5, ok}, "remove 5", removing},
			{removed{failing(errFlaky)}, "arm 1s", waiting},
			{want(api.WantDeleted), "", waiting},
			{elapsed{}, "mint", minting},
			{minted{6, ok}, "remove 6", removing},
			{removed{ok}, "finish 6", finishing},
			{finished{failing(errFlaky)}, "arm 2s", waiting},
			{elapsed{}, "mint", minting},
		},
		"a delete of a failed pipeline needs no resume": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errUser)}, "", failed},
			{want(api.WantDeleted), "mint", minting},
		},
		"force ends a delete that cannot clean up": {
			{want(api.WantDeleted), "mint", minting},
			{minted{1, ok}, "remove 1", removing},
			{removed{failing(errUser)}, "", failed},
			{wanted{api.WantDeleted, true}, "mint", minting},
			{minted{2, ok}, "remove 2", removing},
			{removed{failing(errUser)}, "report force, finish 2", finishing},
			{finished{ok}, "", gone},
		},
		"the node closes while it runs": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, ok}, "", running},
			{closing{}, "stop 1", stopping},
			{want(api.WantRunning), "", stopping},
			{stopped{1}, "", gone},
		},
		"the node closes while it starts": {
			{want(api.WantRunning), "mint", minting},
			{closing{}, "", minting},
			{minted{1, ok}, "", gone},
		},
		"the node closes while it removes": {
			{want(api.WantDeleted), "mint", minting},
			{minted{1, ok}, "remove 1", removing},
			{closing{}, "cancel", removing},
			{removed{failing(errFlaky)}, "", gone},
		},
		"the node closes during the back-off": {
			{want(api.WantRunning), "mint", minting},
			{minted{1, ok}, "start 1", starting},
			{started{1, failing(errFlaky)}, "arm 1s", waiting},
			{closing{}, "disarm", gone},
		},
		"the pipeline was deleted elsewhere": {
			{want(api.WantRunning), "mint", minting},
			{minted{0, failing(errs.New(errs.PipelineNotFound, "gone"))}, "", gone},
		},
	}
	for name, rows := range stories {
		t.Run(name, func(t *testing.T) {
			var s supervisor
			for i, r := range rows {
				if got := show(s.step(r.ev)); got != r.do || s.state != r.after {
					t.Fatalf("event %d %T%+v: did %q and is %s, want %q and %s", i, r.ev, r.ev, got, s.state, r.do, r.after)
				}
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		if got := backoff(i+1, 0); got != want*time.Second {
			t.Errorf("attempt %d waits %s, want %ds", i+1, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 1000).Draw(t, "attempts")
		j := rapid.Float64Range(0, 0.999).Draw(t, "jitter")
		if d := backoff(n, j); d < firstBackoff || d > lastBackoff || d > backoff(n, 0) {
			t.Fatalf("attempt %d with jitter %v waits %s", n, j, d)
		}
	})
}

// Whatever order events come in, at most one thing is under way, no start reuses a generation, and once nothing fails
// any more and the wish stands still, the pipeline gets there.
func TestSupervisorUnderAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s supervisor
		var gen dataflow.Generation
		var started_ []dataflow.Generation
		var pending action // what the driver works on
		armed, alive := false, dataflow.Generation(0)
		work := func(actions []action) {
			for _, a := range actions {
				switch a := a.(type) {
				case arm:
					armed = true
				case disarm:
					armed = false
				case cancelWork, reportForce:
				default:
					if pending != nil {
						t.Fatalf("%T is asked for while %T is under way", a, pending)
					}
					pending = a
					if st, ok := a.(start); ok {
						if n := len(started_); n > 0 && started_[n-1] >= st.gen {
							t.Fatalf("generation %d starts after %d", st.gen, started_[n-1])
						}
						if alive != 0 {
							t.Fatalf("generation %d starts while %d runs", st.gen, alive)
						}
						started_ = append(started_, st.gen)
					}
				}
			}
		}
		answer := func(err error) {
			f := failure{err: err, at: t0}
			a := pending
			pending = nil
			switch a := a.(type) {
			case mint:
				if err == nil {
					gen++
				}
				work(s.step(minted{gen, f}))
			case start:
				if err == nil {
					alive = a.gen
				}
				work(s.step(started{a.gen, f}))
			case stop:
				alive = 0
				work(s.step(stopped(a)))
			case remove:
				work(s.step(removed{f}))
			case finish:
				work(s.step(finished{f}))
			}
		}
		anyErr := rapid.SampledFrom([]error{nil, nil, errFlaky, errUser, errNews})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "event") {
			case 0:
				d := rapid.SampledFrom([]api.Desired{api.WantRunning, api.WantPaused}).Draw(t, "wish")
				work(s.step(want(d)))
			case 1:
				work(s.step(resumed{}))
			case 2:
				work(s.step(changed{}))
			case 3, 4:
				answer(anyErr.Draw(t, "outcome"))
			case 5:
				if armed {
					armed = false
					work(s.step(elapsed{}))
				}
			case 6:
				if alive != 0 {
					g := alive
					if _, isStop := pending.(stop); !isStop {
						alive = 0
					}
					work(s.step(exited{g, failing(anyErr.Draw(t, "end"))}))
				}
			}
		}
		final := rapid.SampledFrom([]api.Desired{api.WantRunning, api.WantPaused, api.WantDeleted}).Draw(t, "final wish")
		work(s.step(want(final)))
		work(s.step(resumed{}))
		target := map[api.Desired]state{api.WantRunning: running, api.WantPaused: idle, api.WantDeleted: gone}[final]
		for range 20 {
			if pending == nil && armed {
				armed = false
				work(s.step(elapsed{}))
			}
			answer(nil)
			work(s.step(resumed{}))
		}
		if s.state != target {
			t.Fatalf("wish %s ends in %s", final, s.state)
		}
	})
}
