package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/api"
)

var began = time.Unix(1_800_000_000, 0)

func copying() api.PipelineStatus {
	st := api.PipelineStatus{Phase: api.PhaseCopy, Since: began, Durable: 7, RowsTotal: 1_234_567, RowsPerSec: 41_000, BytesPerSec: 55 << 20, LagBytes: -1, LagMS: -1,
		UpdatedAt: began.Add(130 * time.Second),
		Tables: []api.TableStatus{
			{Source: "public.orders", Phase: api.PhaseCopy, Rows: 12_100_000, RowsTotal: 19_800_000, Bytes: 6 << 30, BytesTotal: 10 << 30, RowsPerSec: 30_000, ETASeconds: 250},
			{Source: "public.events_with_a_very_long_name_that_does_not_fit_anywhere_2026", Phase: api.PhaseCopy, Rows: 5, RowsTotal: -1, Bytes: 100, BytesTotal: -1, RowsPerSec: 11_000, ETASeconds: -1},
			{Source: "public.customers", Phase: api.PhaseLive, Rows: 41_000, RowsTotal: 41_000, Bytes: 8 << 20, BytesTotal: 8 << 20, RowsPerSec: 3, Missing: 2},
			{Source: "public.tags", Phase: api.PhaseCatchUp, Rows: 10, RowsTotal: 10, Bytes: 1000, BytesTotal: 900},
			{Source: "public.empty", Phase: api.PhasePrepare, Note: "waits for its chunk"},
		}}
	for i := range 20 {
		st.Tables = append(st.Tables, api.TableStatus{Source: fmt.Sprintf("public.t%02d", i), Phase: api.PhaseStarting, BytesTotal: 1 << 20})
	}
	return st
}

func known(st api.PipelineStatus) api.PipelineStatus {
	st.Tables = append([]api.TableStatus{}, st.Tables...)
	st.Tables[1].BytesTotal = 1 << 30
	return st
}

func following() api.PipelineStatus {
	st := api.PipelineStatus{Phase: api.PhaseLive, Since: began, Durable: 412, RowsTotal: 9_000, RowsPerSec: 12.4, BytesPerSec: 3000, LagBytes: 12 << 10, LagMS: 40,
		Position: "16/B374D848", UpdatedAt: began.Add(time.Hour)}
	for _, name := range []string{"a.x", "a.y"} {
		st.Tables = append(st.Tables, api.TableStatus{Source: name, Phase: api.PhaseLive, Rows: 10, Bytes: 4096, BytesTotal: 4096})
	}
	return st
}

func failing() api.PipelineStatus {
	st := following()
	st.Phase, st.Restarts = api.PhaseRetrying, 3
	st.Error = &api.ErrorInfo{Code: "W4001", Message: "the target does not answer", Hint: "check the network", At: began.Add(time.Hour - 9*time.Second)}
	return st
}

func TestBlocks(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		name string
		p    Progress
	}{
		{"copying", Progress{Status: copying(), Now: began.Add(130 * time.Second), MaxTables: 8}},
		{"copying, sizes known", Progress{Status: known(copying()), Now: began.Add(130 * time.Second), MaxTables: 2}},
		{"narrow", Progress{Status: copying(), Now: began.Add(130 * time.Second), MaxTables: 3, Width: 60}},
		{"wide", Progress{Status: copying(), Now: began.Add(130 * time.Second), MaxTables: 3, Width: 160}},
		{"live", Progress{Status: following(), Now: began.Add(time.Hour)}},
		{"stale", Progress{Status: following(), Now: began.Add(time.Hour + 42*time.Second)}},
		{"failing", Progress{Status: failing(), Now: began.Add(time.Hour)}},
		{"nothing known", Progress{Status: api.PipelineStatus{Phase: api.PhaseStarting, LagBytes: -1, LagMS: -1}, Now: began}},
	} {
		c.p.Name = "shop"
		fmt.Fprintf(&b, "== %s\n%s\n", c.name, strings.Join(c.p.Block(), "\n"))
		width := c.p.Width
		if width == 0 {
			width = defaultWidth
		}
		c.p.Colour = true
		for _, l := range c.p.Block() {
			if n := visible(l); n > width {
				t.Errorf("%s: a line of %d characters in a width of %d: %q", c.name, n, width, l)
			}
		}
	}
	golden(t, "progress_blocks", b.String())
}

func TestErrorInFull(t *testing.T) {
	st := failing()
	long := strings.Repeat("word ", 60)
	st.Error.Message, st.Error.Detail, st.Error.Hint, st.Error.Fix = "m "+long, "d "+long, "h "+long, "ALTER a;\nALTER b;"
	text := strings.Join(Progress{Name: "shop", Status: st, Now: began.Add(time.Hour), Width: 60, Once: true}.Block(), "\n")
	if want := "\n  error[W4001] 9s ago: m " + long + " (3 restarts so far)\n  detail: d " + long + "\n  hint: h " + long + "\n  fix: ALTER a;\n  fix: ALTER b;"; !strings.HasSuffix(text, want) {
		t.Errorf("got\n%s\nwant at the end\n%s", text, want)
	}
}

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	d := Display{Out: &out}
	now := began
	show := func(st api.PipelineStatus, after time.Duration) {
		t.Helper()
		now = now.Add(after)
		st.UpdatedAt, st.Since = now, began
		if err := d.Show("shop", st, now); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "-- %s\n", now.Sub(began))
	}
	first := copying()
	first.Tables = first.Tables[:3]
	show(first, 0)
	show(first, time.Second) // nothing has changed: nothing is said
	moved := first
	moved.Tables = append([]api.TableStatus{}, first.Tables...)
	moved.Tables[0].Phase = api.PhaseCatchUp
	show(moved, 8*time.Second)
	show(moved, time.Second) // ten seconds: a sign of life
	show(moved, time.Second)
	show(following(), time.Second)
	show(failing(), time.Second)
	show(failing(), time.Second) // the same error is not repeated
	golden(t, "progress_lines", out.String())
}

func TestRedraw(t *testing.T) {
	var out bytes.Buffer
	d := Display{Out: &out, Terminal: true, Width: func() int { return 80 }}
	st := following()
	if err := d.Show("shop", st, began); err != nil {
		t.Fatal(err)
	}
	first := out.String()
	if n := strings.Count(first, "\n"); n != 5 || strings.Contains(first, "A\r") || !strings.HasSuffix(first, "\x1b[J") {
		t.Errorf("first drawing has %d lines: %q", n, first)
	}
	out.Reset()
	st.Tables = st.Tables[:1]
	if err := d.Show("shop", st, began); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, "\x1b[5A\r\x1b[K") || strings.Count(got, "\n") != 4 || !strings.HasSuffix(got, "\x1b[J") {
		t.Errorf("second drawing: %q", got)
	}
}
