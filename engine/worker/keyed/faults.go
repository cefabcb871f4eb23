package keyed

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
)

// A row whose evaluation failed is missing in what is made of it, until it is taken back. Such faults are counted by node,
// with their weights, and kept with each checkpoint. As long as there are some, whoever reads a view behind such a node gets
// the error in place of an answer that lacks a row, and sinks behind one are given nothing: their checkpoints are held
// (unseen.go) and published as one when the last fault has been taken back.

// faulty is what is known of a node's faults that stand.
type faulty struct {
	rows          int64
	code, message string // of the last
}

// fault counts one.
func (d *driver) fault(f dataflow.Fault) {
	x := d.faults[f.Node]
	x.rows += f.Weight
	if f.Weight > 0 || x.code == "" {
		x.code, x.message = f.Code, f.Message
	}
	if x.rows == 0 {
		delete(d.faults, f.Node)
	} else {
		d.faults[f.Node] = x
	}
}

// tellFaults lets readers know.
func (d *driver) tellFaults() {
	sum := int64(0)
	for _, f := range d.faults {
		sum += f.rows
	}
	faults := maps.Clone(d.faults)
	d.update(func(s *Status) { s.Faults, d.mu.faults = sum, faults })
}

// behind are the IDs of the nodes that a node's rows are made of, with its own.
func behind(g *dataflow.Graph, n int, ids map[string]bool) {
	if ids[g.Nodes[n].ID] {
		return
	}
	ids[g.Nodes[n].ID] = true
	for _, e := range g.Nodes[n].Inputs {
		behind(g, e.From, ids)
	}
}

// writes finds the nodes that sinks stand behind.
func (d *driver) writes() {
	d.written = map[string]bool{}
	for n := range d.opts.Graph.Nodes {
		if s := d.opts.Graph.Nodes[n].Sink; s != nil {
			if _, discards := d.opts.Sinks[s.Sink].Sink.(dataflow.Discarder); !discards {
				behind(d.opts.Graph, n, d.written)
			}
		}
	}
}

// blocked is the error for which sinks are given nothing; nil: there is none.
func (d *driver) blocked() error {
	for id, f := range d.faults {
		if d.written[id] {
			return f.error("so the sinks are given nothing")
		}
	}
	return nil
}

func (f faulty) error(so string) *errs.Error {
	rows := "one row could not be evaluated"
	if f.rows != 1 {
		rows = "some rows could not be evaluated"
	}
	return errs.New(errs.Code(f.code), "%s: %s", f.message, rows).
		WithDetail("an answer would lack what is made of them, %s", so).
		WithHint("correct the rows where they come from; or have the query take them: TRY_CAST, CASE, a wider type")
}

// faultOf is the error of a node's rows, nil if there is none.
func (p *Pipeline) faultOf(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.faults) == 0 {
		return nil
	}
	ids := map[string]bool{}
	behind(p.opts.Graph, n, ids)
	for id, f := range p.mu.faults {
		if ids[id] {
			return f.error("so the view has none")
		}
	}
	return nil
}

// sectionFaults is the section of a checkpoint's meta data with the faults: from which checkpoint on the rows for sinks are
// held for them, and for each node its ID, the number of rows, code and message; texts with their length before them.
const sectionFaults = "faults"

func (d *driver) faultSection() []byte {
	b := binary.AppendUvarint(nil, uint64(d.heldFrom))
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	for id, f := range d.faults {
		text(id)
		b = binary.AppendVarint(b, f.rows)
		text(f.code)
		text(f.message)
	}
	return b
}

// restoreFaults reads the section, but for nodes that are not in the graph any more.
func (d *driver) restoreFaults(b []byte) {
	text := func() string {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > uint64(len(b)-n) {
			b = nil
			return ""
		}
		s := string(b[n : n+int(v)])
		b = b[n+int(v):]
		return s
	}
	from, n := binary.Uvarint(b)
	if n <= 0 {
		return
	}
	d.heldFrom, b = dataflow.Checkpoint(from), b[n:]
	for len(b) > 0 {
		id := text()
		rows, n := binary.Varint(b)
		if n <= 0 {
			return
		}
		b = b[n:]
		f := faulty{rows: rows, code: text(), message: text()}
		if slices.ContainsFunc(d.opts.Graph.Nodes, func(x dataflow.Node) bool { return x.ID == id }) {
			d.faults[id] = f
		}
	}
}
