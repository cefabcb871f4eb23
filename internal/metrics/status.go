package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirstream/weir/internal/api"
)

// Pipeline is a pipeline's name with its status.
type Pipeline struct {
	Name   string
	Status api.PipelineStatus
}

// Raft is where a node of the cluster stands.
type Raft struct {
	Leader                                                  bool
	Term, LastIndex, CommitIndex, AppliedIndex, SnapshotIdx uint64
	Voters                                                  int
}

// status reads values when it is scraped.
type status struct {
	descs []*prometheus.Desc
	fn    func(emit func(i int, v float64, labels ...string))
	types []prometheus.ValueType
}

func (s *status) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range s.descs {
		ch <- d
	}
}

func (s *status) Collect(ch chan<- prometheus.Metric) {
	s.fn(func(i int, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(s.descs[i], s.types[i], v, labels...)
	})
}

// scraped registers metrics whose values fn emits, by their place in infos.
func (r *Registry) scraped(infos []Info, fn func(emit func(i int, v float64, labels ...string))) {
	s := &status{fn: fn}
	for _, i := range infos {
		r.note(i)
		s.descs = append(s.descs, prometheus.NewDesc(i.Name, i.Help, i.Labels, nil))
		t := prometheus.GaugeValue
		if i.Type == "counter" {
			t = prometheus.CounterValue
		}
		s.types = append(s.types, t)
	}
	r.reg.MustRegister(s)
}

// Pipelines shows what read returns at each scrape. A lag that is not known is left out: a zero would look like health.
func (r *Registry) Pipelines(read func() []Pipeline) {
	by := []string{"pipeline"}
	r.scraped([]Info{
		{"weir_pipeline_lag_bytes", "gauge", by, "Bytes of the source's log that are not yet visible in the target."},
		{"weir_pipeline_lag_seconds", "gauge", by, "Age of the oldest source commit that is not yet visible in the target; at least the time since the source's server was last heard of, when that is longer than `discovery.interval` and 3 s."},
		{"weir_pipeline_rows_total", "counter", by, "Rows applied to the target, or by a pipeline of queries read from its sources, since it was started."},
		{"weir_pipeline_checkpoint", "gauge", by, "Number of the newest visible checkpoint."},
		{"weir_pipeline_durable_checkpoint", "gauge", by, "Number of the newest checkpoint that survives a crash of the target."},
		{"weir_pipeline_phase", "gauge", []string{"pipeline", "phase"}, "1 for the phase the pipeline is in."},
		{"weir_pipeline_restarts_total", "counter", by, "Starts after a failure since the process started."},
		{"weir_pipeline_lanes", "gauge", by, "Connections that commit at the target; above 1 a commit is not one cut of the source. Absent while the pipeline does not run."},
		{"weir_pipeline_missing_rows", "gauge", by, "Updates and deletes whose row the target did not have."},
		{"weir_state_bytes", "gauge", by, "Memory that the state of a pipeline of queries takes."},
		{"weir_queue_fill_ratio", "gauge", by, "How full the queues between the tasks of a pipeline of queries are, from 0 to 1: near 1, what is behind them is the bottleneck."},
		{"weir_source_rows_total", "counter", []string{"pipeline", "source"}, "Rows that a source of a pipeline of queries has given since the pipeline was started."},
		{"weir_sink_rows_total", "counter", []string{"pipeline", "sink"}, "Rows that a sink of a pipeline of queries has taken since the pipeline was started."},
		{"weir_pipeline_faults_rows", "gauge", by, "Rows of a pipeline of queries whose evaluation failed, less those that were taken back."},
	}, func(emit func(int, float64, ...string)) {
		for _, p := range read() {
			s := p.Status
			if s.LagBytes >= 0 {
				emit(0, float64(s.LagBytes), p.Name)
			}
			if s.LagMS >= 0 {
				emit(1, float64(s.LagMS)/1000, p.Name)
			}
			emit(2, float64(s.RowsTotal), p.Name)
			emit(3, float64(s.Checkpoint), p.Name)
			emit(4, float64(s.Durable), p.Name)
			emit(5, 1, p.Name, string(s.Phase))
			emit(6, float64(s.Restarts), p.Name)
			var missing int64
			for _, t := range s.Tables {
				missing += t.Missing
			}
			if s.Lanes > 0 {
				emit(7, float64(s.Lanes), p.Name)
			}
			emit(8, float64(missing), p.Name)
			q := s.Query
			if q == nil {
				continue
			}
			emit(9, float64(q.StateBytes), p.Name)
			if q.QueueRoom > 0 {
				emit(10, float64(q.QueueItems)/float64(q.QueueRoom), p.Name)
			}
			for _, f := range q.Sources {
				emit(11, float64(f.Rows), p.Name, f.Name)
			}
			for _, f := range q.Sinks {
				emit(12, float64(f.Rows), p.Name, f.Name)
			}
			emit(13, float64(q.Faults), p.Name)
		}
	})
}

// Sources shows what read returns at each scrape. Sources are asked over the network, so read has to bound its time.
func (r *Registry) Sources(read func() []api.SourceStatus) {
	by := []string{"source", "pipeline"}
	r.scraped([]Info{
		{"weir_source_wal_retained_bytes", "gauge", by, "Bytes of log that the source keeps for the slot."},
		{"weir_source_wal_limit_bytes", "gauge", by, "Bytes of log that the source keeps at most before it drops the slot; absent without a limit."},
		{"weir_source_lag_bytes", "gauge", by, "Bytes between the source's newest position and the confirmed one."},
		{"weir_source_lag_seconds", "gauge", by, "Age of the oldest source commit that is not confirmed."},
		{"weir_source_slot_active", "gauge", by, "1 while the slot has a reader."},
		{"weir_source_shared_pipelines", "gauge", by, "Pipelines that read the slot together with this one, itself included; 0 while it reads its own."},
		{"weir_source_slot_lost", "gauge", by, "1 when the slot is gone or of no more use: only a new copy repairs that. The bytes of log that it keeps are 0 then."},
		{"weir_source_ring_bytes", "gauge", by, "Bytes of a shared slot's stream that are held in memory for all who read it."},
	}, func(emit func(int, float64, ...string)) {
		for _, s := range read() {
			for i, v := range []int64{s.WALRetainedBytes, s.WALLimitBytes, s.LagBytes} {
				if v >= 0 {
					emit(i, float64(v), s.Name, s.Pipeline)
				}
			}
			if s.LagMS >= 0 {
				emit(3, float64(s.LagMS)/1000, s.Name, s.Pipeline)
			}
			emit(4, oneIf(s.SlotActive), s.Name, s.Pipeline)
			emit(5, float64(len(s.SharedWith)), s.Name, s.Pipeline)
			emit(6, oneIf(s.SlotState == "lost" || s.SlotState == "missing"), s.Name, s.Pipeline)
			emit(7, float64(s.RingBytes), s.Name, s.Pipeline)
		}
	})
}

// Raft shows what read returns at each scrape.
func (r *Registry) Raft(read func() Raft) {
	r.scraped([]Info{
		{"weir_raft_applied_index", "gauge", nil, "Index of the newest entry applied to the catalog."},
		{"weir_raft_commit_index", "gauge", nil, "Index of the newest decided entry."},
		{"weir_raft_last_index", "gauge", nil, "Index of the newest entry in the log."},
		{"weir_raft_snapshot_index", "gauge", nil, "Index up to which the newest raft snapshot reaches."},
		{"weir_raft_term", "gauge", nil, "Election term."},
		{"weir_raft_leader", "gauge", nil, "1 while this node leads."},
		{"weir_raft_voters", "gauge", nil, "Number of voting nodes."},
	}, func(emit func(int, float64, ...string)) {
		s := read()
		for i, v := range []uint64{s.AppliedIndex, s.CommitIndex, s.LastIndex, s.SnapshotIdx, s.Term} {
			emit(i, float64(v))
		}
		emit(5, oneIf(s.Leader))
		emit(6, float64(s.Voters))
	})
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
