package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Queries are the distributions of what pipelines of queries do; what they hold is read when somebody scrapes.
type Queries struct {
	epochs, checkpoints, bytes, commits *prometheus.HistogramVec
	transactions                        *prometheus.CounterVec
}

// Queries makes them.
func (r *Registry) Queries() *Queries {
	return &Queries{
		epochs: r.Histogram("weir_epoch_seconds", "How long an epoch takes from its barrier until it is visible.",
			prometheus.ExponentialBuckets(0.0001, 2, 16), "pipeline"),
		checkpoints: r.Histogram("weir_checkpoint_seconds", "How long a checkpoint takes from its barrier until it is durable.",
			prometheus.ExponentialBuckets(0.001, 2, 14), "pipeline"),
		bytes: r.Histogram("weir_checkpoint_bytes", "What a checkpoint writes: changed state and rows for sinks.",
			prometheus.ExponentialBuckets(256, 4, 12), "pipeline"),
		commits: r.Histogram("weir_table_commit_seconds", "How long a transaction of internal tables takes from its commit until it is durable.",
			prometheus.ExponentialBuckets(0.0005, 2, 14), "pipeline"),
		transactions: r.Counter("weir_table_transactions_total", "Transactions of internal tables that ended, by result: ok or error.", "pipeline", "result"),
	}
}

// Epoch notes an epoch.
func (q *Queries) Epoch(pipeline string, took time.Duration) {
	q.epochs.WithLabelValues(pipeline).Observe(took.Seconds())
}

// Checkpoint notes a checkpoint.
func (q *Queries) Checkpoint(pipeline string, took time.Duration, bytes int) {
	q.checkpoints.WithLabelValues(pipeline).Observe(took.Seconds())
	q.bytes.WithLabelValues(pipeline).Observe(float64(bytes))
}

// Commit notes a transaction of internal tables.
func (q *Queries) Commit(pipeline string, took time.Duration, failed bool) {
	result := "ok"
	if failed {
		result = "error"
	}
	q.transactions.WithLabelValues(pipeline, result).Inc()
	q.commits.WithLabelValues(pipeline).Observe(took.Seconds())
}
