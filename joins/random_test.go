package joins

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirstream/weir/engine/row"
)

// TestAgainstNestedLoop sends random changes through random graphs of joins over shared indexes, with rows of several
// weights, retractions ahead of their inserts, empty epochs, checkpoints and restarts, and compares what each join has
// put out with a nested loop over what its inputs hold, at every barrier.
func TestAgainstNestedLoop(t *testing.T) {
	for seed := range uint64(200) {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { againstNestedLoop(t, seed) }) {
			return
		}
	}
}

func againstNestedLoop(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	b := newBed(t, []int{1, 4, 256}[r.IntN(3)])
	g := newRandomGraph(b, r)
	g.forget(r)
	b.open()
	b.save()
	defer func() { b.store.Close() }()
	for range 12 {
		for range r.IntN(7) {
			g.change(r)
			if r.IntN(8) == 0 {
				b.absorb(r.IntN(len(b.pending) + 1))
			}
		}
		g.settle()
		b.barrier()
		b.verify()
		switch r.IntN(4) {
		case 0:
			b.save()
		case 1:
			b.absorb(r.IntN(len(b.pending) + 1))
		case 2:
			if r.IntN(2) == 0 {
				b.save()
			}
			b.restore()
		}
	}
}

type randomGraph struct {
	bed     *bed
	sources []*node
	grows   []bool // takes no retraction
	keys    int64
	rows    int64
}

func newRandomGraph(b *bed, r *rand.Rand) *randomGraph {
	g := &randomGraph{bed: b, keys: 1 + r.Int64N(6), rows: 1 + r.Int64N(2)}
	key, columns := []row.Type{{Kind: row.BigInt}}, []int{0}
	switch r.IntN(5) {
	case 0:
		key = []row.Type{{Kind: row.String}}
	case 1:
		key, columns = []row.Type{{Kind: row.BigInt}, {Kind: row.Int}}, []int{0, 1}
	case 2:
		key, columns = nil, nil // a cross join
		g.keys, g.rows = 1, 1
	}
	nulls := key != nil && r.IntN(4) == 0
	codec := row.JoinKey(key)
	if nulls {
		codec = row.GroupKey(key)
	}
	var indexes []*node
	index := func(input *node, grow bool) {
		indexes = append(indexes, b.add(&node{name: "index " + input.name, input: input, index: IndexOptions{
			Name: fmt.Sprintf("index %s %d", input.name, len(b.nodes)), Key: columns, Codec: codec, NullsMatch: nulls, Columns: []int{2, 1, 0}, Retract: !grow}}))
	}
	for i := range 3 {
		first := row.Type{Kind: row.BigInt}
		if len(key) > 0 && key[0].Kind == row.String {
			first = key[0]
		}
		s := b.add(&node{name: fmt.Sprint("s", i), types: []row.Type{first, {Kind: row.Int}, {Kind: row.String}}})
		g.sources, g.grows = append(g.sources, s), append(g.grows, r.IntN(6) == 0)
		index(s, g.grows[i])
	}
	for i := range 5 {
		n := &node{name: fmt.Sprint("j", i)}
		pick := func() *node { return indexes[r.IntN(len(indexes))] }
		if r.IntN(4) == 0 { // a star
			for _, k := range r.Perm(len(indexes))[:2+r.IntN(2)] {
				n.inputs = append(n.inputs, indexes[k])
			}
			if r.IntN(2) == 0 {
				n.left = make([]bool, len(n.inputs))
				for k := range n.inputs[1:] {
					n.left[k+1] = r.IntN(2) == 0
				}
			}
		} else {
			n.kind = Inner + Kind(r.IntN(int(Mark)))
			n.inputs = []*node{pick(), pick()}
			n.condition = r.IntN(2) == 0
			for side, x := range n.inputs {
				if n.kind.counts(side) && !x.index.Retract {
					n.condition = false
				}
			}
		}
		for k := range n.inputs {
			if n.kind == Semi || n.kind == Anti || n.kind == Mark {
				k = 0
			}
			columns := r.Perm(3)
			if i == 0 { // an index is made of it
				columns = []int{0, 1, 2}
			}
			for _, c := range columns {
				n.output = append(n.output, Column{k, c})
			}
		}
		if n.kind == Mark {
			n.output = append(n.output, MarkColumn)
		}
		b.add(n)
		if i == 0 {
			index(n, false)
		}
	}
	return g
}

// forget gives indexes that may have one a TTL, of a length that nothing reaches.
func (g *randomGraph) forget(r *rand.Rand) {
	for _, x := range g.bed.nodes {
		may := x.index.Retract && r.IntN(3) == 0
		for _, j := range g.bed.nodes {
			if slices.Contains(j.inputs, x) && (j.kind > Inner || j.left != nil) {
				may = false
			}
		}
		if may {
			x.index.TTL = 1 << 40
		}
	}
}

// change sends a batch of one source.
func (g *randomGraph) change(r *rand.Rand) {
	k := r.IntN(len(g.sources))
	s := g.sources[k]
	size := 1 + r.IntN(6)
	if r.IntN(30) == 0 {
		size = 40
	}
	var rows []counted
	for range size {
		v := values{nil, nil, fmt.Sprint("r", r.Int64N(g.rows))}
		if x := r.Int64N(g.keys); x < 5 {
			v[0] = x
			if s.types[0].Kind == row.String {
				v[0] = fmt.Sprint("k", x)
			}
		}
		if x := r.Int64N(3); x < 2 {
			v[1] = x
		}
		w := 1 + r.Int64N(3)
		if !g.grows[k] && r.IntN(2) == 0 {
			w = -w
			for _, c := range s.rows { // rather one that is there
				if r.IntN(4) == 0 {
					v = c.row
					w = -1 - r.Int64N(max(c.weight, 1)+1)
					break
				}
			}
		}
		rows = append(rows, counted{v, w})
	}
	s.change(rows, r.IntN(2) == 0)
}

// settle makes up for what has been taken back and never given.
func (g *randomGraph) settle() {
	for _, s := range g.sources {
		var rows []counted
		for _, c := range s.rows {
			if c.weight < 0 {
				rows = append(rows, counted{c.row, -c.weight})
			}
		}
		if rows != nil {
			s.change(rows, false)
		}
	}
}
