package expr

import (
	"testing"

	"github.com/weirstream/weir/engine/row"
)

func TestSmoke(t *testing.T) {
	b := row.NewBuilder([]row.Type{{Kind: row.BigInt}, {Kind: row.String}})
	for i := range 10 {
		b.Cols[0].Int64 = append(b.Cols[0].Int64, int64(i))
		b.Cols[1].AppendString("abc"[:i%4])
		b.EndRow(1)
	}
	batch := b.Seal()
	a, s := &Column{0, row.Type{Kind: row.BigInt}, "a"}, &Column{1, row.Type{Kind: row.String}, "s"}
	n, err := Number("0.908")
	if err != nil {
		t.Fatal(err)
	}
	e1 := mustResolve("*", n, a)
	e2 := mustResolve("CASE", mustResolve("<", a, Int(row.Type{Kind: row.Int}, 5)), Str("low"), mustResolve("=", s, Str("a")), s, Null())
	e3 := mustResolve("AND", mustResolve("<>", a, Int(row.Type{Kind: row.Int}, 0)), mustResolve("=", mustResolve("%", Int(row.Type{Kind: row.Int}, 6), a), Int(row.Type{Kind: row.Int}, 0)))
	p, err := Compile([]Expr{e1, e2, e3, a}, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	out, faults := p.Run(batch, 0)
	for i := range batch.Len {
		for k, e := range []Expr{e1, e2, e3, a} {
			if out[k].Nulls.Is(i) {
				t.Logf("%s = NULL", e)
			} else {
				t.Logf("%s = %s", e, row.AppendText(nil, e.Type(), out[k], i, nil))
			}
		}
	}
	t.Log(faults)
	f, err := CompileFilter(e3, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(f.Run(batch, 0, nil))
}
