package plan

import (
	"strings"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/engine/row"
)

func (p *physical) lowerValues(r *values) (stream, error) {
	types := r.schema.Types()
	b := row.NewBuilder(types)
	b.Reset()
	var text []string
	for _, rw := range r.rows {
		var line []string
		for c, k := range rw {
			b.Cols[c].Gather(types[c].Layout(), b.Len, k.Vec, nil, 1)
			if k.IsNull() {
				b.Cols[c].SetNull(b.Len, b.Len+1)
			}
			line = append(line, k.String())
		}
		b.EndRow(1)
		text = append(text, "("+strings.Join(line, ", ")+")")
	}
	detail := strings.Join(text, ", ")
	name := "values " + detail
	if p.salt != "" {
		name += " for " + p.salt // those of others have been read
	}
	s, ok := p.sources["values\x00"+name]
	if !ok {
		s = len(p.program.Sources)
		p.sources["values\x00"+name] = s
		st := SourceTable{Name: name, Schema: r.schema}
		for i := range r.schema {
			st.Columns = append(st.Columns, i)
		}
		p.program.Sources = append(p.program.Sources, Source{Name: name, Connector: "values", Tables: []SourceTable{st}, Rows: b.Seal()})
	}
	n := dataflow.Node{Kind: "values", Detail: detail, Schema: r.schema, Append: true, Source: &dataflow.SourceTable{Source: s}}
	out := stream{at: make([]int, len(r.schema))}
	for i := range out.at {
		out.at[i] = i
	}
	out.node = p.add(n)
	return out, nil
}
