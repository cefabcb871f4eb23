// Package report promises that a benchmark's figures are judged in one place and told the same way to people and to
// programs: medians, their ratio, the floor, and all single figures they come from.
package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Line is one quantity that is measured.
type Line struct {
	Work   string
	Unit   string
	Peer   string // whom the figures are compared with; "" for nobody
	Higher bool   // more is better
	Floor  Floor
}

// A Floor is what a line has to reach; the zero value asks for nothing.
type Floor struct {
	Ratio float64 // at least so many times as good as the peer
	Most  float64 // a value of at most this
	Least float64 // a value of at least this
}

func (f Floor) String() string {
	switch {
	case f.Ratio > 0:
		return fmt.Sprintf("ratio>=%g", f.Ratio)
	case f.Most > 0:
		return fmt.Sprintf("value<=%g", f.Most)
	case f.Least > 0:
		return fmt.Sprintf("value>=%g", f.Least)
	}
	return ""
}

// A Record is a line of the report. The first eight fields are what other programs read.
type Record struct {
	Work     string    `json:"work"`
	Value    *float64  `json:"value"` // median; null if the work failed
	Unit     string    `json:"unit"`
	PeerName string    `json:"peer_name"`
	Peer     *float64  `json:"peer"`  // median
	Ratio    *float64  `json:"ratio"` // above 1 weir is better
	Floor    string    `json:"floor"` // such as "ratio>=1.2" or "value<=10"; "" asks for nothing
	OK       bool      `json:"ok"`
	Values   []float64 `json:"values,omitempty"`
	Peers    []float64 `json:"peers,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Judge makes a record of the figures of all runs.
func (l Line) Judge(values, peers []float64) Record {
	r := Record{Work: l.Work, Unit: l.Unit, PeerName: l.Peer, Floor: l.Floor.String(), OK: true, Values: values, Peers: peers}
	if len(values) == 0 {
		r.OK, r.Error = false, "not measured"
		return r
	}
	value := Median(values)
	r.Value = &value
	if len(peers) > 0 {
		peer := Median(peers)
		r.Peer = &peer
		better, worse := value, peer
		if !l.Higher {
			better, worse = peer, value
		}
		if ratio := better / worse; !math.IsNaN(ratio) && !math.IsInf(ratio, 0) {
			r.Ratio = &ratio
		}
	}
	switch {
	case l.Floor.Ratio > 0:
		r.OK = r.Ratio != nil && *r.Ratio >= l.Floor.Ratio
	case l.Floor.Most > 0:
		r.OK = value <= l.Floor.Most
	case l.Floor.Least > 0:
		r.OK = value >= l.Floor.Least
	}
	return r
}

// Fail makes the record of a line whose work failed.
func (l Line) Fail(err error) Record {
	return Record{Work: l.Work, Unit: l.Unit, PeerName: l.Peer, Floor: l.Floor.String(), Error: err.Error()}
}

// Median of an even number of figures is the mean of the two in the middle.
func Median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Percentile is the smallest figure that this part of all figures does not exceed.
func Percentile(figures []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[max(int(math.Ceil(part*float64(len(sorted))))-1, 0)]
}

// OK tells whether all records are.
func OK(records []Record) bool {
	return !slices.ContainsFunc(records, func(r Record) bool { return !r.OK })
}

// Print writes the table.
func Print(out io.Writer, header []string, records []Record) error {
	var text strings.Builder
	for _, line := range header {
		fmt.Fprintln(&text, line)
	}
	fmt.Fprintln(&text)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WORK\tUNIT\tWEIR\tPEER\tRATIO\tFLOOR\tOK\tWEIR FROM..TO\tPEER FROM..TO")
	for _, r := range records {
		floor := cmp.Or(r.Floor, "-")
		verdict := "yes"
		if !r.OK {
			verdict = "NO"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			r.Work, r.Unit, number(r.Value), number(r.Peer), number(r.Ratio), floor, verdict, spread(r.Values), spread(r.Peers))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	told := "" // lines of one work fail together and for one reason
	for _, r := range records {
		if r.Error != "" && r.Error != told {
			told = r.Error
			fmt.Fprintf(&text, "\n%s: %s\n", r.Work, r.Error)
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func number(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case math.Abs(*v) >= 1000:
		return fmt.Sprintf("%.0f", *v)
	}
	return fmt.Sprintf("%.3g", *v)
}

func spread(figures []float64) string {
	if len(figures) == 0 {
		return "-"
	}
	low, high := slices.Min(figures), slices.Max(figures)
	return number(&low) + ".." + number(&high)
}

// Write stores the records as JSON, and the table with its header beside it as text.
func Write(path string, header []string, records []Record) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(records, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return err
	}
	text, err := os.Create(strings.TrimSuffix(path, filepath.Ext(path)) + ".txt")
	if err != nil {
		return err
	}
	return errors.Join(Print(text, header, records), text.Close())
}
