package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/internal/api"
)

// Progress is one look at a pipeline. Block and Changes turn looks into text; they know nothing of the terminal, so that
// every screen is a golden file.
type Progress struct {
	Name      string
	Status    api.PipelineStatus
	Now       time.Time
	Width     int // 0: 100
	MaxTables int // 0: 15
	Colour    bool
	// Once: nothing redraws the block, so that the error is shown whole, however many lines of the terminal it takes.
	Once bool
}

const (
	defaultWidth  = 100
	defaultTables = 15
	barWidth      = 10
	staleAfter    = 5 * time.Second
)

// sums adds up the tables.
type sums struct {
	tables, live, copied int
	bytes, bytesTotal    int64 // bytesTotal -1: some table's size is not known
	phases               map[api.Phase]int
}

func sumOf(tables []api.TableStatus) sums {
	s := sums{tables: len(tables), phases: map[api.Phase]int{}}
	for _, t := range tables {
		s.phases[t.Phase]++
		if t.Phase == api.PhaseLive {
			s.live++
		}
		if t.Phase == api.PhaseLive || t.Phase == api.PhaseCatchUp {
			s.copied++
		}
		s.bytes += max(t.Bytes, 0)
		switch {
		case t.BytesTotal < 0:
			s.bytesTotal = -1
		case s.bytesTotal >= 0:
			s.bytesTotal += max(t.BytesTotal, t.Bytes)
		}
	}
	return s
}

// Block is the display that a terminal redraws: a summary, the busiest tables, the stream, the last error.
func (p Progress) Block() []string {
	width, limit := p.Width, p.MaxTables
	if width <= 0 {
		width = defaultWidth
	}
	if limit <= 0 {
		limit = defaultTables
	}
	st := p.Status
	s := sumOf(st.Tables)
	lines := []string{p.summary(s)}
	shown := busiest(st.Tables)
	if len(shown) > limit {
		shown = shown[:limit]
	}
	if len(shown) > 0 {
		lines = append(lines, p.tables(shown, width)...)
	}
	if rest := len(st.Tables) - len(shown); rest > 0 {
		lines = append(lines, "  … "+restOf(s, shown, rest))
	}
	lines = append(lines, p.stream())
	if !p.Once {
		lines = append(lines, p.failure()...)
	}
	for i := range lines {
		lines[i] = cut(lines[i], width)
	}
	if p.Once {
		lines = append(lines, p.failure()...)
	}
	return lines
}

// failure is the last error; its detail and its fix only where there is room for them.
func (p Progress) failure() []string {
	e := p.Status.Error
	if e == nil {
		return nil
	}
	text := fmt.Sprintf("  error[%s] %s: %s", e.Code, Ago(p.Now, e.At), e.Message)
	if n := p.Status.Restarts; n > 0 {
		text += fmt.Sprintf(" (%s so far)", Plural(n, "restart"))
	}
	lines := []string{p.paint(Bad, text)}
	add := func(name, text string) {
		for line := range strings.Lines(text) {
			lines = append(lines, "  "+name+": "+strings.TrimRight(line, "\n"))
		}
	}
	if p.Once && !strings.Contains(e.Message, e.Detail) {
		add("detail", e.Detail)
	}
	add("hint", e.Hint)
	if p.Once {
		add("fix", e.Fix)
	}
	return lines
}

func (p Progress) paint(s Style, text string) string {
	if !p.Colour {
		return text
	}
	return paint(s, text)
}

// PhaseStyle is the colour of a phase.
func PhaseStyle(ph api.Phase) Style {
	switch ph {
	case api.PhaseLive, api.PhaseFinished:
		return Good
	case api.PhaseRetrying, api.PhasePaused:
		return Warn
	case api.PhaseFailed:
		return Bad
	}
	return Plain
}

func (p Progress) summary(s sums) string {
	st := p.Status
	parts := []string{fmt.Sprintf("%s  %s", p.Name, p.paint(PhaseStyle(st.Phase), string(st.Phase)))}
	if !st.Since.IsZero() {
		parts[0] += " for " + Took(max(p.Now.Sub(st.Since), 0).Truncate(time.Second))
	}
	if s.tables > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s live", s.live, Plural(s.tables, "table")))
	}
	if s.copied < s.tables {
		of := Unknown
		if s.bytesTotal >= 0 {
			of = Bytes(s.bytesTotal)
		}
		parts = append(parts, fmt.Sprintf("copied %s of about %s", Bytes(s.bytes), of))
		if st.BytesPerSec > 0 {
			parts = append(parts, ByteRate(st.BytesPerSec))
			if left := s.bytesTotal - s.bytes; s.bytesTotal >= 0 && left >= 0 {
				parts = append(parts, "eta "+Took(time.Duration(float64(left)/st.BytesPerSec*float64(time.Second)).Round(time.Second)))
			}
		}
	}
	if age := p.Now.Sub(st.UpdatedAt); !st.UpdatedAt.IsZero() && age > staleAfter {
		parts = append(parts, p.paint(Warn, "as of "+Ago(p.Now, st.UpdatedAt)))
	}
	return strings.Join(parts, "  ")
}

// query is the stream of a pipeline of queries.
func (p Progress) query() string {
	st, q := p.Status, p.Status.Query
	var out int64
	for _, f := range q.Sinks {
		out += f.Rows
	}
	text := strings.Join([]string{fmt.Sprintf("  stream  %s", RowRate(st.RowsPerSec)),
		fmt.Sprintf("read %s rows, wrote %s rows", Count(st.RowsTotal), Count(out)),
		fmt.Sprintf("epoch %d in %s", q.Epoch, fine(q.EpochMS)),
		fmt.Sprintf("checkpoint %d%s", st.Durable, lastCheckpoint(q)),
		"state " + Bytes(q.StateBytes)}, "  ")
	if q.Faults > 0 {
		text += "  " + p.paint(Warn, Count(q.Faults)+" rows"+" could not be evaluated")
	}
	return text
}

func lastCheckpoint(q *api.QueryStatus) string {
	if len(q.Checkpoints) == 0 {
		return ""
	}
	return " in " + fine(q.Checkpoints[0].TookMS)
}

// fine is a short time in milliseconds.
func fine(ms float64) string { return Took(time.Duration(ms * float64(time.Millisecond))) }

func (p Progress) stream() string {
	if p.Status.Query != nil {
		return p.query()
	}
	st := p.Status
	parts := []string{fmt.Sprintf("  stream  %s  %s", RowRate(st.RowsPerSec), ByteRate(st.BytesPerSec)),
		"lag " + Bytes(st.LagBytes) + ", " + Millis(st.LagMS),
		"applied " + Count(st.RowsTotal) + " rows",
		fmt.Sprintf("checkpoint %d", st.Durable)}
	if st.Position != "" {
		parts = append(parts, "at "+st.Position)
	}
	return strings.Join(parts, "  ")
}

func (p Progress) tables(tables []api.TableStatus, width int) []string {
	copying, notes := false, 0
	for _, s := range tables {
		copying = copying || s.Phase == api.PhaseCopy
		notes = max(notes, visible(noteOf(s)))
	}
	t := Table{Head: []string{"  TABLE", "PHASE", "ROWS", "BYTES", "RATE"}, Right: []bool{false, false, true, true, true}}
	others := 46 // characters that the other columns take, about; what is left is for names
	if copying {
		t.Head, t.Right = append(t.Head, "COPY", "ETA"), append(t.Right, false, true)
		others += 26
	}
	if notes > 0 {
		others += min(notes, width/4) + 2
	}
	for _, s := range tables {
		row := []string{"  " + middle(s.Source, max(width-others, 16)), p.paint(PhaseStyle(s.Phase), string(s.Phase)), Count(s.Rows), Bytes(s.Bytes), ""}
		if s.Phase == api.PhaseCopy || s.Phase == api.PhaseLive || s.Phase == api.PhaseCatchUp {
			row[4] = RowRate(s.RowsPerSec)
		}
		if s.Phase == api.PhaseCopy {
			if s.RowsTotal >= 0 {
				row[2] += "/" + Count(max(s.RowsTotal, s.Rows))
			}
			row = append(row, bar(s), Seconds(s.ETASeconds))
		} else if copying {
			row = append(row, "", "")
		}
		if note := noteOf(s); note != "" {
			if s.Missing > 0 {
				note = p.paint(Warn, note)
			}
			row = append(row, note)
		}
		t.Rows = append(t.Rows, row)
	}
	return strings.Split(strings.TrimRight(t.String(), "\n"), "\n")
}

func noteOf(s api.TableStatus) string {
	if s.Missing > 0 {
		return Plural(int(s.Missing), "missing row")
	}
	return s.Note
}

// bar shows bytes where the size is known, else rows, else nothing: a bar that guesses is worse than none.
func bar(s api.TableStatus) string {
	var part float64
	switch {
	case s.BytesTotal > 0:
		part = float64(s.Bytes) / float64(s.BytesTotal)
	case s.RowsTotal > 0:
		part = float64(s.Rows) / float64(s.RowsTotal)
	default:
		return Unknown
	}
	part = min(max(part, 0), 0.99) // totals are estimates: only the end of the copy is 100 %
	full := int(part * barWidth)
	return strings.Repeat("█", full) + strings.Repeat("░", barWidth-full) + fmt.Sprintf(" %d%%", int(part*100))
}

// busiest orders tables by what a person wants to see: what failed, what is copied now, what moves, the rest.
func busiest(tables []api.TableStatus) []api.TableStatus {
	rank := map[api.Phase]int{api.PhaseFailed: 0, api.PhaseRetrying: 1, api.PhaseCopy: 2, api.PhaseCatchUp: 3, api.PhasePrepare: 4, api.PhaseLive: 5}
	order := func(t api.TableStatus) int {
		if r, ok := rank[t.Phase]; ok {
			return r
		}
		return len(rank)
	}
	out := slices.Clone(tables)
	slices.SortStableFunc(out, func(a, b api.TableStatus) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(b.RowsPerSec, a.RowsPerSec), cmp.Compare(a.Source, b.Source))
	})
	return out
}

func restOf(s sums, shown []api.TableStatus, rest int) string {
	left := map[api.Phase]int{}
	for ph, n := range s.phases {
		left[ph] = n
	}
	for _, t := range shown {
		left[t.Phase]--
	}
	var parts []string
	for _, ph := range []api.Phase{api.PhaseFailed, api.PhaseRetrying, api.PhaseCopy, api.PhaseCatchUp, api.PhasePrepare, api.PhaseStarting, api.PhaseLive, api.PhasePaused, api.PhaseStopped} {
		if left[ph] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", left[ph], ph))
		}
	}
	return fmt.Sprintf("and %s: %s", Plural(rest, "table"), strings.Join(parts, ", "))
}

// middle shortens a name in its middle: its schema and its end tell tables apart.
func middle(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	head := (width - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(width-1-head):])
}

// cut keeps a line from wrapping, which would break the redrawing. Colour codes are copied whole.
func cut(s string, width int) string {
	if visible(s) <= width {
		return s
	}
	var b strings.Builder
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
			b.WriteRune(r)
		case escape:
			escape = r != 'm'
			b.WriteRune(r)
		case n < width-1:
			b.WriteRune(r)
			n++
		case n == width-1:
			b.WriteRune('…')
			n++
		}
	}
	return b.String()
}

// Changes is the display where there is no terminal: one line per change of phase, of the pipeline or of a table, and
// for a new error. prev is nil at first.
func (p Progress) Changes(prev *api.PipelineStatus) []string {
	var lines []string
	st := p.Status
	if prev == nil || prev.Phase != st.Phase {
		lines = append(lines, fmt.Sprintf("%s: %s", p.Name, st.Phase))
	}
	before := map[string]api.TableStatus{}
	if prev != nil {
		for _, t := range prev.Tables {
			before[t.Source] = t
		}
	}
	for _, t := range st.Tables {
		old, known := before[t.Source]
		if known && old.Phase == t.Phase {
			continue
		}
		line := fmt.Sprintf("%s: %s %s", p.Name, t.Source, t.Phase)
		switch {
		case t.Phase == api.PhaseCopy && t.RowsTotal >= 0:
			line += fmt.Sprintf(", about %s rows, %s", Count(t.RowsTotal), Bytes(t.BytesTotal))
		case (t.Phase == api.PhaseLive || t.Phase == api.PhaseCatchUp) && t.Bytes > 0: // not those copied by an earlier process
			line += fmt.Sprintf(", %s rows, %s copied", Count(t.Rows), Bytes(t.Bytes))
		}
		if t.Note != "" {
			line += ", " + t.Note
		}
		lines = append(lines, line)
	}
	if prev != nil && len(st.Tables) > 0 { // one that does not run lists none
		now := map[string]bool{}
		for _, t := range st.Tables {
			now[t.Source] = true
		}
		for _, t := range prev.Tables {
			if !now[t.Source] {
				lines = append(lines, fmt.Sprintf("%s: %s removed", p.Name, t.Source))
			}
		}
	}
	if e := st.Error; e != nil && (prev == nil || prev.Error == nil || prev.Error.Code != e.Code || prev.Error.Message != e.Message) {
		lines = append(lines, fmt.Sprintf("%s: error[%s] %s", p.Name, e.Code, e.Message))
	}
	return lines
}

// Line is the regular sign of life where there is no terminal.
func (p Progress) Line() string {
	s := sumOf(p.Status.Tables)
	return p.summary(s) + p.stream()
}

const linePeriod = 10 * time.Second

// Display draws Progress on a writer, in the way that suits it.
type Display struct {
	Out      io.Writer
	Terminal bool
	Colour   bool
	Width    func() int

	drawn    int // lines of the block on the screen
	prev     *api.PipelineStatus
	lastLine time.Time
}

// Show draws one look.
func (d *Display) Show(name string, st api.PipelineStatus, now time.Time) error {
	p := Progress{Name: name, Status: st, Now: now, Colour: d.Colour && d.Terminal}
	if d.Terminal {
		if d.Width != nil {
			p.Width = d.Width()
		}
		_, err := io.WriteString(d.Out, redraw(d.drawn, p.Block(), &d.drawn))
		return err
	}
	lines := p.Changes(d.prev)
	if d.prev == nil {
		d.lastLine = now
	} else if now.Sub(d.lastLine) >= linePeriod {
		d.lastLine = now
		lines = append(lines, p.Line())
	}
	d.prev = &st
	for _, l := range lines {
		if _, err := fmt.Fprintln(d.Out, l); err != nil {
			return err
		}
	}
	return nil
}

// redraw goes up over what was drawn, writes the lines anew and clears what is left below.
func redraw(before int, lines []string, drawn *int) string {
	var b strings.Builder
	if before > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", before)
	}
	for _, l := range lines {
		b.WriteString("\r\x1b[K" + l + "\n")
	}
	b.WriteString("\x1b[J")
	*drawn = len(lines)
	return b.String()
}
