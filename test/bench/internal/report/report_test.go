package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	rate := Line{Work: "rate", Higher: true, Floor: Floor{Ratio: 1.2}}
	time := Line{Work: "time", Floor: Floor{Ratio: 1.3}}
	limit := Line{Work: "limit", Floor: Floor{Most: 3}}
	for _, c := range []struct {
		name          string
		line          Line
		values, peers []float64
		ratio         float64 // 0: none
		ok            bool
	}{
		{"a higher rate is better", rate, []float64{100, 130, 120}, []float64{100, 90, 110}, 1.2, true},
		{"a rate below its floor", rate, []float64{119}, []float64{100}, 1.19, false},
		{"a shorter time is better", time, []float64{2, 1}, []float64{3}, 2, true},
		{"a longer time", time, []float64{2}, []float64{1}, 0.5, false},
		{"a limit does not ask for the peer", limit, []float64{3}, []float64{1}, 1 / 3.0, true},
		{"a value above its limit", limit, []float64{3.1}, nil, 0, false},
		{"a floor on a ratio needs a peer", rate, []float64{1e6}, nil, 0, false},
		{"no floor", Line{}, []float64{1}, []float64{0}, 0, true},
		{"no figures", rate, nil, []float64{1}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.line.Judge(c.values, c.peers)
			ratio := 0.0
			if r.Ratio != nil {
				ratio = *r.Ratio
			}
			if ratio != c.ratio || r.OK != c.ok {
				t.Errorf("ratio %v, ok %v; want %v, %v", ratio, r.OK, c.ratio, c.ok)
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	var figures []float64
	for i := 200; i > 0; i-- {
		figures = append(figures, float64(i))
	}
	for part, want := range map[float64]float64{0: 1, 0.5: 100, 0.99: 198, 1: 200} {
		if got := Percentile(figures, part); got != want {
			t.Errorf("part %v of 1 to 200 is %v, want %v", part, got, want)
		}
	}
	if got := Median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of 1 to 4 is %v", got)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench", "mirror.json")
	line := Line{Work: "1 copy", Unit: "rows/s", Peer: "peer", Higher: true, Floor: Floor{Ratio: 1.2}}
	failed := line.Fail(errors.New("contents differ"))
	records := []Record{line.Judge([]float64{3}, []float64{2}), failed, failed}
	if OK(records) {
		t.Error("a failed record is taken for a good one")
	}
	if err := Write(path, []string{"machine"}, records); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	// Other programs rely on these names, and on null for what there is not.
	for _, name := range []string{"work", "value", "unit", "peer_name", "peer", "ratio", "floor", "ok"} {
		if _, there := back[1][name]; !there {
			t.Errorf("a record has no %q: %s", name, data)
		}
	}
	if back[0]["ratio"] != 1.5 || back[0]["ok"] != true || back[1]["value"] != nil || back[1]["ok"] != false {
		t.Errorf("records came back as %v", back)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "mirror.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := Print(&printed, []string{"machine"}, records); err != nil {
		t.Fatal(err)
	}
	if printed.String() != string(text) || strings.Count(printed.String(), "contents differ") != 1 {
		t.Errorf("printed\n%s\nwritten\n%s", printed.String(), text)
	}
}
