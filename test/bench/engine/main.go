// Command engine measures the keyed engine on the queries of the Nexmark benchmark: events per second of CPU, latency of
// epochs, memory, size of state, time of checkpoints. Each run is a process of its own.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/test/bench/internal/report"
	"github.com/weirstream/weir/test/nexmark"
)

// floors are the thousand events a second and core that a query has to reach at parallelism 1.
func floors() map[string]float64 {
	return map[string]float64{"q0": 4000, "q1": 4000, "q2": 4000, "q14": 4000, "q21": 4000, "q22": 4000, "q3": 4000, "q13": 4000, "q4": 1000,
		"q15": 1000, "q17": 1000, "q9": 700, "q18": 800, "q16": 500, "q19": 500, "q20": 500}
}

// result is what a run tells its parent.
type result struct {
	Events       int64         `json:"events"`
	CPU          time.Duration `json:"cpu"`
	Wall         time.Duration `json:"wall"`
	EpochP99     time.Duration `json:"epoch_p99"`
	Resident     int64         `json:"resident"`
	State        uint64        `json:"state"`
	Checkpoint   time.Duration `json:"checkpoint"` // median
	Checkpoints  int           `json:"checkpoints"`
	DeltaBytes   int64         `json:"delta_bytes"`
	RowsOut      int64         `json:"rows_out"`
	MakePerEvent float64       `json:"make_ns"` // making an event costs so many ns of CPU
}

func main() {
	log.SetFlags(0)
	query := flag.String("query", "", "run this query in this process and print its figures as JSON")
	only := flag.String("only", "", "comma-separated queries; default all")
	runs := flag.Int("runs", 3, "runs of each query")
	events := flag.Int64("events", 10_000_000, "events that are measured")
	warm := flag.Int64("warm-up", 1_000_000, "events before them")
	parallelism := flag.String("parallelism", "1,2", "tasks of a fragment")
	interval := flag.Duration("checkpoint", time.Second, "checkpoint interval")
	memory := flag.Int64("memory", 0, "bytes that the states may take in memory; 0: no limit")
	profile := flag.String("profile", "", "write a CPU profile of a -query")
	out := flag.String("out", "build/bench/engine.json", "report")
	_ = flag.String("weir", "", "not used: the engine is in this binary")
	flag.Parse()
	if *query != "" {
		var p int
		if _, err := fmt.Sscan(*parallelism, &p); err != nil {
			log.Fatal(err)
		}
		r, err := run(context.Background(), *query, *warm, *events, p, *interval, *memory, *profile)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			log.Fatal(err)
		}
		return
	}
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	var records []report.Record
	for _, q := range nexmark.Queries() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), q.Name) {
			continue
		}
		for _, p := range strings.Split(*parallelism, ",") {
			line := report.Line{Work: q.Name + " parallelism " + p, Unit: "thousand events/s/core", Higher: true}
			if p == "1" {
				line.Floor.Least = floors()[q.Name]
			}
			var net, gross []float64
			var last result
			var failed error
			for range *runs {
				r, err := child(self, q.Name, p, *warm, *events, *interval)
				if err != nil {
					failed = err
					break
				}
				last = r
				perEvent := float64(r.CPU.Nanoseconds()) / float64(r.Events)
				net = append(net, 1e6/perEvent)
				gross = append(gross, 1e6/(perEvent+r.MakePerEvent))
			}
			if failed != nil {
				records = append(records, line.Fail(failed))
				log.Printf("%-4s p%s  %v", q.Name, p, failed)
				continue
			}
			records = append(records, line.Judge(net, nil),
				report.Line{Work: line.Work + ", with the making of the events", Unit: line.Unit, Higher: true}.Judge(gross, nil))
			log.Printf("%-4s p%s  net %6.0f  gross %6.0f k/s/core  wall %.2fs  epoch p99 %4.0f ms  resident %5d MiB  state %5d MiB  checkpoint %4.0f ms x%d (%d MiB)  out %d rows",
				q.Name, p, report.Median(net), report.Median(gross), last.Wall.Seconds(), float64(last.EpochP99.Microseconds())/1000, last.Resident>>20, last.State>>20,
				float64(last.Checkpoint.Microseconds())/1000, last.Checkpoints, last.DeltaBytes>>20, last.RowsOut)
		}
	}
	header := []string{fmt.Sprintf("%d events after %d, checkpoints every %s", *events, *warm, *interval)}
	if err := report.Print(os.Stdout, header, records); err != nil {
		log.Fatal(err)
	}
	if err := report.Write(*out, header, records); err != nil {
		log.Fatal(err)
	}
	if !report.OK(records) {
		os.Exit(1)
	}
}

func child(self, query, parallelism string, warm, events int64, interval time.Duration) (r result, err error) {
	cmd := exec.Command(self, "-query", query, "-parallelism", parallelism, "-warm-up", fmt.Sprint(warm), "-events", fmt.Sprint(events), "-checkpoint", interval.String())
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("%w: %s", err, strings.TrimSpace(diag.String()))
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}
