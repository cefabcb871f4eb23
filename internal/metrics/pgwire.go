package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Pgwire is what Postgres clients ask for.
type Pgwire struct {
	queries *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// Pgwire makes them.
func (r *Registry) Pgwire() *Pgwire {
	return &Pgwire{
		queries: r.Counter("weir_pgwire_queries_total", "Queries of Postgres clients that ended, by result: ok or error.", "result"),
		seconds: r.Histogram("weir_pgwire_query_seconds", "How long a query of a Postgres client takes until its last row is sent.",
			prometheus.ExponentialBuckets(0.0001, 2, 18)),
	}
}

// Query notes a query.
func (p *Pgwire) Query(took time.Duration, failed bool) {
	result := "ok"
	if failed {
		result = "error"
	}
	p.queries.WithLabelValues(result).Inc()
	p.seconds.WithLabelValues().Observe(took.Seconds())
}
