package row

// MaxBatch is how many rows a batch holds at most. Sources and operators that make more make more batches.
const MaxBatch = 4096

// Batch is rows with weights. Whoever calls with a batch lends it for the length of the call: who keeps something of it
// makes a copy, and who changes it changes only the header (Sel, Weights, Cols), in a header of their own.
type Batch struct {
	// Len is how many values each vector holds.
	Len int
	// Sel are the rows that count, rising; nil means all. A filter makes a selection and copies nothing.
	Sel []int32
	// Cols are the columns; vectors may be shared between batches.
	Cols []*Vector
	// Weights has a value for each of the Len rows: +1 insert, -1 retraction, other counts where rows are equal; never 0
	// in a row that counts. nil means that all are +1.
	Weights []int64
}

// Rows is how many rows count.
func (b *Batch) Rows() int {
	if b.Sel != nil {
		return len(b.Sel)
	}
	return b.Len
}

// Weight of row i.
func (b *Batch) Weight(i int) int64 {
	if b.Weights == nil {
		return 1
	}
	return b.Weights[i]
}

// At is the place in the vectors of the k-th row that counts.
func (b *Batch) At(k int) int {
	if b.Sel != nil {
		return int(b.Sel[k])
	}
	return k
}

// Builder is a batch under construction, with vectors of its own that are used again after Reset.
type Builder struct {
	Batch
	types   []Type
	vectors []Vector
	weights []int64
}

// NewBuilder returns a builder for rows of the types.
func NewBuilder(types []Type) *Builder {
	b := &Builder{types: types, vectors: make([]Vector, len(types))}
	b.Cols = make([]*Vector, len(types))
	for i := range b.vectors {
		b.Cols[i] = &b.vectors[i]
	}
	return b
}

// Types are the columns' types.
func (b *Builder) Types() []Type { return b.types }

// Reset forgets all rows.
func (b *Builder) Reset() {
	b.Len, b.Sel, b.Weights, b.weights = 0, nil, nil, b.weights[:0]
	for i := range b.vectors {
		b.Cols[i] = &b.vectors[i]
		b.vectors[i].Truncate()
	}
}

// Append copies the rows of from that sel names, all that count if sel is nil.
func (b *Builder) Append(from *Batch, sel []int32) {
	if sel == nil {
		sel = from.Sel
	}
	n := from.Len
	if sel != nil {
		n = len(sel)
	}
	for c := range b.vectors {
		b.vectors[c].Gather(b.types[c].Layout(), b.Len, from.Cols[c], sel, from.Len)
	}
	switch {
	case from.Weights != nil:
		b.fillWeights()
		b.weights = gather(b.weights, from.Weights, sel, n)
	case b.Weights != nil:
		for range n {
			b.weights = append(b.weights, 1)
		}
	}
	b.Len += n
	if b.Weights != nil {
		b.Weights = b.weights
	}
}

func (b *Builder) fillWeights() {
	for len(b.weights) < b.Len {
		b.weights = append(b.weights, 1)
	}
	if b.weights == nil {
		b.weights = make([]int64, 0, MaxBatch)
	}
	b.Weights = b.weights
}

// EndRow ends a row whose values were appended to each of Cols, and gives it its weight.
func (b *Builder) EndRow(weight int64) {
	if weight != 1 && b.Weights == nil {
		b.fillWeights()
	}
	b.Len++
	if b.Weights != nil {
		b.weights = append(b.weights, weight)
		b.Weights = b.weights
	}
}

// Seal makes the batch fit to be passed on.
func (b *Builder) Seal() *Batch {
	for i := range b.vectors {
		b.vectors[i].Seal(b.Len)
	}
	return &b.Batch
}
