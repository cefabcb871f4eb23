package metrics

import (
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/api"
)

func full() *Registry {
	r := New("1.2.3")
	r.Pipelines(func() []Pipeline {
		return []Pipeline{
			{"orders", api.PipelineStatus{Phase: api.PhaseLive, LagBytes: 12, LagMS: 1500, RowsTotal: 3, Checkpoint: 7, Durable: 6,
				Restarts: 2, Tables: []api.TableStatus{{Missing: 1}, {Missing: 4}}}},
			{"totals", api.PipelineStatus{Phase: api.PhaseLive, LagBytes: -1, LagMS: -1, Query: &api.QueryStatus{StateBytes: 4096, QueueItems: 1, QueueRoom: 4,
				Sources: []api.Flow{{Name: "bids", Rows: 10}}, Sinks: []api.Flow{{Name: "out", Rows: 2}}}}},
			{"users", api.PipelineStatus{Phase: api.PhaseCopy, LagBytes: -1, LagMS: -1}},
		}
	})
	q := r.Queries()
	q.Epoch("totals", 300*time.Microsecond)
	q.Checkpoint("totals", 5*time.Millisecond, 1000)
	r.Pgwire().Query(3*time.Millisecond, true)
	r.Sources(func() []api.SourceStatus {
		return []api.SourceStatus{{Name: "shop", Pipeline: "orders", WALRetainedBytes: 5, WALLimitBytes: -1, SlotActive: true, LagMS: 250}}
	})
	r.Raft(func() Raft { return Raft{Leader: true, Term: 2, AppliedIndex: 9, Voters: 1} })
	return r
}

func scrape(t *testing.T, r *Registry) string {
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatal(w.Code, err)
	}
	return string(b)
}

func TestScrape(t *testing.T) {
	text := scrape(t, full())
	for _, line := range []string{
		`weir_build_info{version="1.2.3"} 1`,
		`weir_pipeline_lag_bytes{pipeline="orders"} 12`,
		`weir_pipeline_lag_seconds{pipeline="orders"} 1.5`,
		`weir_pipeline_rows_total{pipeline="orders"} 3`,
		`weir_pipeline_phase{phase="live",pipeline="orders"} 1`,
		`weir_pipeline_phase{phase="copy",pipeline="users"} 1`,
		`weir_pipeline_restarts_total{pipeline="orders"} 2`,
		`weir_pipeline_missing_rows{pipeline="orders"} 5`,
		`weir_source_wal_retained_bytes{pipeline="orders",source="shop"} 5`,
		`weir_source_lag_seconds{pipeline="orders",source="shop"} 0.25`,
		`weir_source_slot_active{pipeline="orders",source="shop"} 1`,
		`weir_source_slot_lost{pipeline="orders",source="shop"} 0`,
		`weir_state_bytes{pipeline="totals"} 4096`,
		`weir_queue_fill_ratio{pipeline="totals"} 0.25`,
		`weir_source_rows_total{pipeline="totals",source="bids"} 10`,
		`weir_sink_rows_total{pipeline="totals",sink="out"} 2`,
		`weir_epoch_seconds_count{pipeline="totals"} 1`,
		`weir_pgwire_queries_total{result="error"} 1`,
		`weir_pgwire_query_seconds_count 1`,
		`weir_checkpoint_seconds_bucket{pipeline="totals",le="0.008"} 1`,
		`weir_checkpoint_bytes_sum{pipeline="totals"} 1000`,
		`weir_raft_applied_index 9`,
		`weir_raft_leader 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	for _, absent := range []string{`weir_pipeline_lag_bytes{pipeline="users"}`, "weir_source_wal_limit_bytes{"} {
		if strings.Contains(text, absent) {
			t.Errorf("/metrics shows an unknown value: %s", absent)
		}
	}
}

// Every metric has its line in docs/metrics.md, and every line its metric.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(weir_[a-z0-9_]+)` (.*)$").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	for _, i := range full().Infos() {
		labels := "–"
		if len(i.Labels) > 0 {
			labels = strings.Join(i.Labels, ", ")
		}
		want := "| " + i.Type + " | " + labels + " | " + i.Help + " |"
		if got, ok := documented[i.Name]; !ok || got != want {
			t.Errorf("docs/metrics.md should say\n| `%s` %s\nand says\n| `%s` %s", i.Name, want, i.Name, got)
		}
		delete(documented, i.Name)
	}
	for name := range documented {
		t.Errorf("docs/metrics.md describes %s, which does not exist", name)
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	for _, name := range []string{"pipeline_lag_bytes", "weir_lag", "weir_pipeline_lag", "weir_Pipeline_lag_bytes"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was taken", name)
				}
			}()
			New("x").Gauge(name, "help")
		}()
	}
	r := New("x")
	r.Counter("weir_sink_commits_total", "Commits.", "sink").WithLabelValues("pg").Add(2)
	r.Histogram("weir_raft_append_seconds", "Appends.", []float64{0.1, 1}).WithLabelValues().Observe(0.05)
	var names []string
	for _, i := range r.Infos() {
		names = append(names, i.Name)
	}
	if !slices.Equal(names, []string{"weir_build_info", "weir_raft_append_seconds", "weir_sink_commits_total"}) {
		t.Errorf("infos %v", names)
	}
	if text := scrape(t, r); !strings.Contains(text, `weir_sink_commits_total{sink="pg"} 2`) || !strings.Contains(text, `weir_raft_append_seconds_bucket{le="0.1"} 1`) {
		t.Error("made metrics are not shown")
	}
}
