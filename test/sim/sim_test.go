package sim

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "run this seed alone and print what it does")
	repeatFlag = flag.Int("repeat", 1, "how often -seed is run")
	seedsFlag  = flag.Int("seeds", 200, "how many seeds TestSeeds runs, from 1 on")
	mutantFlag = flag.Int("mutant", 0, "the broken variant to run -seed with; see mutants.go")
	workFlag   = flag.String("work", "", "first,last,mutant: what a process started by the tests has to run")
)

// TestSeeds runs plan after plan. With -seed it runs that one, here.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		one(t)
		return
	}
	counts := map[string]int{}
	var commits int
	results := spread(t, uint64(*seedsFlag), sound, false)
	for _, r := range results {
		for k, n := range r.Counts {
			counts[k] += n
		}
		commits += r.Commits
		if len(r.Violations) > 0 {
			t.Errorf("seed %d: %s\nrun it alone: go test ./test/sim -run TestSeeds -seed %d -v", r.Seed, strings.Join(r.Violations, "\n  "), r.Seed)
		}
	}
	if len(results) != *seedsFlag {
		t.Errorf("%d results of %d seeds", len(results), *seedsFlag)
	}
	for _, k := range sortedKeys(counts) {
		t.Logf("%6d  %s", counts[k], k)
	}
	t.Logf("%d visible states were compared with the source's", commits)
	if *seedsFlag < 200 {
		return // too few to meet everything
	}
	for _, k := range required() {
		if counts[k] == 0 {
			t.Errorf("no run ever met %q", k)
		}
	}
}

// required is what a set of runs must have met.
func required() []string {
	out := []string{
		"node: crash at any moment", "node: sync failed", "node: paused",
		"zombie: pipe outlives its node", "zombie: connection outlives the fence", "zombie: commit refused by the fence",
		"source: batch ends inside a transaction", "source: connection lost", "source: server down",
		"source: copy resumed under a later view", "source: table copied beside the stream",
		"source: open transaction rolled back", "source: subtransaction rolled back",
		"target: commit arrives late", "target: connection lost before the commit", "target: connection refused",
		"target: crash takes back visible commits", "target: load lost before its commit", "target: reply lost after the commit",
		"target: reply of a load lost", "target: retryable error", "target: server crash", "target: server down", "target: slow reply",
		"target: transaction behind a failed one refused", "target: commit of a dead client takes effect",
		"X14: target put back to an older state", "X15: another server answers at the source's address", "X15: somebody else moved the slot",
	}
	for _, p := range points() {
		out = append(out, "crash at "+string(p))
	}
	return out
}

// one runs -seed in this process.
func one(t *testing.T) {
	plan := MakePlan(*seedFlag)
	t.Log("\n" + plan.describe())
	synctest.Test(t, func(t *testing.T) {
		for range *repeatFlag {
			r := run(plan, mutant(*mutantFlag))
			if *repeatFlag == 1 || len(r.Violations) > 0 {
				t.Log("\n" + strings.Join(r.Trace, "\n"))
			}
			for _, v := range r.Violations {
				t.Error(v)
			}
			t.Logf("%d states compared in %s", r.Commits, r.Virtual)
			if r.Stuck {
				fmt.Println(strings.Join(append(r.Trace, r.Violations...), "\n"))
				os.Exit(1)
			}
			if t.Failed() {
				return
			}
		}
	})
}

// maxSeeds is how many seeds a mutant may survive.
const maxSeeds = 40

// TestMutants breaks the models on purpose. What the checks do not notice, they do not prove.
func TestMutants(t *testing.T) {
	for m := sound + 1; m < mutants; m++ {
		t.Run(strings.ReplaceAll(m.String(), " ", "-"), func(t *testing.T) {
			for _, r := range spread(t, maxSeeds, m, true) {
				if len(r.Violations) > 0 {
					t.Logf("caught by seed %d: %.300s", r.Seed, r.Violations[0])
					return
				}
			}
			t.Errorf("nobody noticed in %d seeds", maxSeeds)
		})
	}
}

// spread runs seeds 1 to n in processes of their own, one bubble each, as many at once as there are processors. until:
// stop at the first violation.
func spread(t *testing.T, n uint64, m mutant, until bool) []Result {
	t.Helper()
	const chunk = 10
	var mu sync.Mutex
	var results []Result
	var found bool
	next := uint64(1)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for {
				mu.Lock()
				first := next
				size := uint64(chunk)
				if until {
					size = 5
				}
				last := min(first+size-1, n)
				next = last + 1
				stop := found && until
				mu.Unlock()
				if first > n || stop {
					return
				}
				got, err := process(t, first, last, m)
				mu.Lock()
				results = append(results, got...)
				for _, r := range got {
					found = found || len(r.Violations) > 0
				}
				if err != nil {
					t.Errorf("seeds %d to %d: %v", first, last, err)
				}
				mu.Unlock()
			}
		}()
	}
	workers.Wait()
	return results
}

const resultMark = "RESULT "

// process runs seeds in a process of the test binary.
func process(t *testing.T, first, last uint64, m mutant) ([]Result, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWork$", "-test.timeout=1m", "-work", fmt.Sprintf("%d,%d,%d", first, last, m))
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var results []Result
	var rest []string
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), resultMark)
		if !ok {
			rest = append(rest, lines.Text())
			continue
		}
		var r Result
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return results, err
		}
		results = append(results, r)
	}
	if err := cmd.Wait(); err != nil {
		text := strings.Join(rest, "\n") + errors.String()
		return results, fmt.Errorf("%w\n%.4000s", err, text)
	}
	return results, nil
}

// TestWork is the body of a process that spread starts; without -work it runs one seed, to see that the seeds run at all.
func TestWork(t *testing.T) {
	var first, last uint64 = 1, 1
	var m mutant
	if *workFlag != "" {
		if _, err := fmt.Sscanf(*workFlag, "%d,%d,%d", &first, &last, &m); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		for seed := first; seed <= last; seed++ {
			r := run(MakePlan(seed), m)
			r.Trace = nil
			if *workFlag == "" {
				for _, v := range r.Violations {
					t.Error(v)
				}
				continue
			}
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println(resultMark + string(line))
			if r.Stuck {
				os.Exit(1) // the bubble would wait for ever
			}
			if m != sound && len(r.Violations) > 0 {
				return
			}
		}
	})
}

// TestPlanIsFixedBySeed: a seed that was noted down must mean the same run tomorrow.
func TestPlanIsFixedBySeed(t *testing.T) {
	for seed := range uint64(50) {
		if a, b := MakePlan(seed).describe(), MakePlan(seed).describe(); a != b {
			t.Fatalf("seed %d made two plans:\n%s\n%s", seed, a, b)
		}
	}
}
