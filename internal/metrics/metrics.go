// Package metrics is what weir counts and shows on /metrics. Every name is weir_<part>_<what>_<unit>, has a line in
// docs/metrics.md, and belongs to a Registry that somebody owns: there is no global one.
//
// What a part knows about itself at any time (a status) is read when somebody scrapes, so that keeping a metric costs
// nothing between scrapes and never disagrees with the status.
package metrics

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Registry holds the metrics of one process.
type Registry struct {
	reg *prometheus.Registry
	mu  struct {
		sync.Mutex
		infos []Info
	}
}

// Info describes a metric: its line in docs/metrics.md.
type Info struct {
	Name   string
	Type   string // gauge, counter, histogram
	Labels []string
	Help   string
}

// New returns a registry that shows the build and, under their customary names, the Go runtime and the process.
func New(version string) *Registry {
	r := &Registry{reg: prometheus.NewRegistry()}
	r.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.Gauge("weir_build_info", "1, with the version as label.", "version").WithLabelValues(version).Set(1)
	return r
}

// nameRule: a unit ends the name. A few names count things that are their own unit.
const nameRule = `^weir_[a-z]+(_[a-z0-9]+)*_(bytes|seconds|total|rows|ratio|info|index|checkpoint|phase|term|active|lost|leader|voters|pipelines|lanes|count|up)$`

// note checks the name and remembers the metric. A bad name is a defect that the first start shows.
func (r *Registry) note(i Info) {
	if !regexp.MustCompile(nameRule).MatchString(i.Name) {
		panic(fmt.Sprintf("metric %q is not named weir_<part>_<what>_<unit>", i.Name))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.infos = append(r.mu.infos, i)
}

// Infos lists all metrics of weir's own in order of name.
func (r *Registry) Infos() []Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.mu.infos)
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Gauge makes a value that a part sets.
func (r *Registry) Gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	r.note(Info{name, "gauge", labels, help})
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.reg.MustRegister(g)
	return g
}

// Counter makes a value that only rises.
func (r *Registry) Counter(name, help string, labels ...string) *prometheus.CounterVec {
	r.note(Info{name, "counter", labels, help})
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.reg.MustRegister(c)
	return c
}

// Histogram makes a distribution over the given upper bounds.
func (r *Registry) Histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	r.note(Info{name, "histogram", labels, help})
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.reg.MustRegister(h)
	return h
}

// Handler serves /metrics.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Gatherer is for tests and for other exporters.
func (r *Registry) Gatherer() prometheus.Gatherer { return r.reg }
