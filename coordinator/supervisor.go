package coordinator

import (
	"time"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// state is where the supervision of one pipeline stands on this node.
type state uint8

const (
	idle      state = iota // nothing runs; the pipeline is paused, or not looked at yet
	minting                // a new generation is proposed
	starting               // the runner starts it
	running                // its goroutines run
	stopping               // it makes its final cut
	waiting                // it failed; a timer will start it again
	failed                 // it failed, and the user has to do something first
	ended                  // its source had no more to give
	removing               // its traces outside are removed
	finishing              // the catalog is told to forget it
	gone                   // nothing more will happen here
)

func (s state) String() string {
	return [...]string{"idle", "minting", "starting", "running", "stopping", "waiting", "failed", "ended",
		"removing", "finishing", "gone"}[s]
}

// An event is something that happened to a pipeline. Those that report on a generation carry it, because they may
// arrive after the next one has begun.
type event interface{ isEvent() }

type (
	wanted struct { // the catalog holds this wish
		desired api.Desired
		force   bool
	}
	resumed struct{} // the user asks to try again now
	changed struct{} // the definition changed, and only a restart makes it effective
	minted  struct { // the catalog answered
		gen dataflow.Generation
		failure
	}
	started struct { // the runner's Start returned
		gen dataflow.Generation
		failure
	}
	exited struct { // a running pipeline ended by itself
		gen dataflow.Generation
		failure
	}
	stopped  struct{ gen dataflow.Generation } // Stop returned
	elapsed  struct{}                          // the back-off is over
	removed  struct{ failure }                 // Remove returned
	finished struct{ failure }                 // the catalog answered FinishDelete
	closing  struct{}                          // the node shuts down
)

// failure is an outcome: err is nil for success. Chance and time come in with it, so that step needs neither.
type failure struct {
	err    error
	at     time.Time
	jitter float64 // in [0, 1)
}

func (wanted) isEvent()   {}
func (resumed) isEvent()  {}
func (changed) isEvent()  {}
func (minted) isEvent()   {}
func (started) isEvent()  {}
func (exited) isEvent()   {}
func (stopped) isEvent()  {}
func (elapsed) isEvent()  {}
func (removed) isEvent()  {}
func (finished) isEvent() {}
func (closing) isEvent()  {}

// An action is what the driver has to do. It answers each of the first five with one event.
type action interface{ isAction() }

type (
	mint        struct{}
	start       struct{ gen dataflow.Generation }
	stop        struct{ gen dataflow.Generation }
	remove      struct{ gen dataflow.Generation }
	finish      struct{ gen dataflow.Generation }
	cancelWork  struct{} // end a start or remove that is under way; its answer still comes
	arm         struct{ delay time.Duration }
	disarm      struct{}
	reportForce struct{ err error } // a forced delete goes on without having cleaned up
)

func (mint) isAction()        {}
func (start) isAction()       {}
func (stop) isAction()        {}
func (remove) isAction()      {}
func (finish) isAction()      {}
func (cancelWork) isAction()  {}
func (arm) isAction()         {}
func (disarm) isAction()      {}
func (reportForce) isAction() {}

// supervisor drives one pipeline to what the catalog wants of it. It is a step function: what it is told it remembers,
// and what it wants done it returns.
type supervisor struct {
	state   state
	want    api.Desired
	force   bool
	closing bool
	gen     dataflow.Generation

	again     bool        // restart as soon as it runs
	early     *exited     // it ended before its start was told
	failedFor api.Desired // the wish under which it failed
	failure   error       // the last one, until the pipeline runs again or the user steps in
	failedAt  time.Time
	startedAt time.Time
	attempts  int   // failures in a row
	restarts  int   // starts after a failure, for the status
	lessons   int   // starts at once, since the last that went well for long
	lesson    error // what the next start knows and the last did not; the driver tells it and clears it
}

// A pipeline that ran this long was healthy: its next failure counts as the first.
const healthyAfter = time.Minute

// The back-off doubles from the first to the last.
const (
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
	// maxLessons bounds starts without a pause. There is one for each table whose unique values change places, and some more.
	maxLessons = 100
)

// backoff is the pause before attempt n+1. The jitter takes up to a quarter off, so that pipelines that failed together
// do not return together.
func backoff(attempts int, jitter float64) time.Duration {
	d := lastBackoff
	if shift := attempts - 1; shift < 5 {
		d = firstBackoff << max(shift, 0)
	}
	return max(firstBackoff, d-time.Duration(jitter*float64(d)/4))
}

func (s *supervisor) step(ev event) []action {
	switch ev := ev.(type) {
	case wanted:
		s.want, s.force = ev.desired, ev.force
		return s.pursue()
	case closing:
		s.closing = true
		return s.pursue()
	case resumed:
		return s.resume()
	case changed:
		s.again = s.state == starting || s.state == running
		return s.pursue()
	case minted:
		return s.onMinted(ev)
	case started:
		return s.onStarted(ev)
	case exited:
		return s.onExited(ev)
	case stopped:
		if s.state != stopping || ev.gen != s.gen {
			return nil
		}
		s.state, s.startedAt = idle, time.Time{}
		return s.pursue()
	case elapsed:
		if s.state != waiting {
			return nil
		}
		s.restarts++
		return s.become(minting, mint{})
	case removed:
		return s.onRemoved(ev)
	case finished:
		return s.onFinished(ev)
	}
	return nil
}

func (s *supervisor) become(next state, actions ...action) []action {
	s.state = next
	return actions
}

// pursue compares the state with the wish, wherever nobody else's answer is awaited.
func (s *supervisor) pursue() []action {
	leave := s.closing || s.want != api.WantRunning
	switch s.state {
	case idle:
		switch {
		case s.closing:
			return s.become(gone)
		case s.want == api.WantRunning, s.want == api.WantDeleted:
			return s.become(minting, mint{})
		}
	case waiting:
		switch {
		case s.closing:
			return s.become(gone, disarm{})
		case s.want == api.WantPaused:
			s.forget()
			return s.become(idle, disarm{})
		case s.want != s.failedFor:
			s.forget()
			return s.become(minting, disarm{}, mint{})
		}
	case failed, ended:
		switch {
		case s.closing:
			return s.become(gone)
		case s.want == api.WantPaused:
			s.forget()
			return s.become(idle)
		case s.want == api.WantDeleted && (s.failedFor != api.WantDeleted || s.force):
			s.forget()
			return s.become(minting, mint{})
		}
	case starting:
		if leave {
			return []action{cancelWork{}}
		}
	case removing:
		if s.closing {
			return []action{cancelWork{}}
		}
	case running:
		if leave || s.again {
			s.again = false
			return s.become(stopping, stop{s.gen})
		}
	}
	return nil
}

// forget is for when the user has changed something: what went wrong before is no longer news.
func (s *supervisor) forget() {
	s.failure, s.failedFor, s.attempts = nil, "", 0
}

func (s *supervisor) resume() []action {
	if s.want != api.WantRunning && s.want != api.WantDeleted {
		return nil
	}
	switch s.state {
	case waiting:
		s.attempts = 0
		return s.become(minting, disarm{}, mint{})
	case failed, ended:
		s.forget()
		return s.become(minting, mint{})
	}
	return nil
}

func (s *supervisor) onMinted(ev minted) []action {
	if s.state != minting {
		return nil
	}
	switch {
	case s.closing:
		return s.become(gone)
	case errs.Is(ev.err, errs.PipelineNotFound):
		return s.become(gone)
	case errs.Is(ev.err, errs.PipelineState):
		// The wish changed while the generation was asked for. The new wish is here already or on its way.
		s.state = idle
		if s.want == api.WantPaused {
			return nil
		}
		return s.fail(ev.failure)
	case ev.err != nil:
		return s.fail(ev.failure)
	}
	s.gen = ev.gen
	switch s.want {
	case api.WantRunning:
		return s.become(starting, start{s.gen})
	case api.WantDeleted:
		return s.become(removing, remove{s.gen})
	default:
		return s.become(idle)
	}
}

func (s *supervisor) onStarted(ev started) []action {
	if s.state != starting || ev.gen != s.gen {
		return nil
	}
	early := s.early
	s.early = nil
	if ev.err == nil {
		s.state, s.startedAt = running, ev.at
		s.failure = nil
		if early != nil {
			return s.onExited(*early)
		}
		return s.pursue()
	}
	s.again = false
	if s.closing || s.want != api.WantRunning {
		// It was cancelled, or failed on its way out: either way nothing runs.
		s.state = idle
		return s.pursue()
	}
	return s.fail(ev.failure)
}

func (s *supervisor) onExited(ev exited) []action {
	if s.state == starting && ev.gen == s.gen {
		s.early = &ev // the word of its start is still on its way
		return nil
	}
	if s.state != running || ev.gen != s.gen {
		return nil // while it stops, the end is expected
	}
	s.again = false
	if ev.err == nil {
		s.forget()
		s.state = ended
		return s.pursue()
	}
	if s.closing || s.want != api.WantRunning {
		s.state = idle
		return s.pursue()
	}
	return s.fail(ev.failure)
}

// fail chooses between trying again and asking the user.
func (s *supervisor) fail(f failure) []action {
	if !s.startedAt.IsZero() && f.at.Sub(s.startedAt) >= healthyAfter {
		s.attempts, s.lessons = 0, 0
	}
	s.startedAt = time.Time{}
	s.failure, s.failedAt, s.failedFor = f.err, f.at, s.want
	if needsUser(f.err) {
		return s.become(failed)
	}
	if e, ok := errs.As(f.err); ok && e.Learned && s.lessons < maxLessons {
		s.lesson, s.failure = f.err, nil
		s.lessons++
		s.restarts++
		return s.become(minting, mint{})
	}
	s.attempts++
	return s.become(waiting, arm{backoff(s.attempts, f.jitter)})
}

func (s *supervisor) onRemoved(ev removed) []action {
	if s.state != removing {
		return nil
	}
	switch {
	case s.closing:
		return s.become(gone)
	case ev.err != nil && s.force:
		return s.become(finishing, reportForce{ev.err}, finish{s.gen})
	case ev.err != nil:
		return s.fail(ev.failure)
	}
	return s.become(finishing, finish{s.gen})
}

func (s *supervisor) onFinished(ev finished) []action {
	if s.state != finishing {
		return nil
	}
	if ev.err == nil || s.closing || errs.Is(ev.err, errs.PipelineNotFound) {
		return s.become(gone)
	}
	return s.fail(ev.failure) // Remove runs again, which is harmless
}

// needsUser tells errors that come back unchanged however often a pipeline is started: somebody has to change
// something first. Everything else, also what nobody has thought of, is tried again.
func needsUser(err error) bool {
	e, ok := errs.As(err)
	if !ok {
		return false
	}
	if e.Final || e.Code.Part() == "SQL" {
		return true
	}
	switch e.Code {
	case errs.SourcePreflight, errs.SlotLost, errs.SlotGap, errs.SourceReplaced, errs.PublicationMissing,
		errs.TableUnsupported, errs.NoTables, errs.SourceSchemaChange, errs.RowFilterUnsupport, errs.TableUnknown,
		errs.Fenced, errs.TargetRejected, errs.TargetDDL, errs.TargetRowMissing,
		errs.TargetTable, errs.InsertOnly, errs.StateLogDamaged,
		errs.BadFlag, errs.BadURL, errs.SecretMissing, errs.UnknownOption, errs.BadPattern, errs.NotBuiltYet:
		return true
	}
	return false
}
