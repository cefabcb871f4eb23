package pgoutput

import (
	"fmt"
	"testing"
)

// An orders row of eight columns as text: 95 bytes of values, one null.
func benchTuple() Tuple {
	return Tuple(nil).
		AppendColumn(ColumnText, []byte("918273645")).
		AppendColumn(ColumnText, []byte("4711")).
		AppendColumn(ColumnText, []byte("2024-05-06 07:08:09.123456+00")).
		AppendColumn(ColumnText, []byte("1299.90")).
		AppendColumn(ColumnText, []byte("shipped")).
		AppendColumn(ColumnNull, nil).
		AppendColumn(ColumnText, []byte("a note of ordinary length")).
		AppendColumn(ColumnText, []byte("f"))
}

func BenchmarkDecode(b *testing.B) {
	row := benchTuple()
	for _, m := range []Message{
		{Kind: Insert, RelationID: 16385, New: row},
		{Kind: Update, RelationID: 16385, New: row},
		{Kind: Update, RelationID: 16385, OldKind: 'O', Old: row, New: row},
		{Kind: Delete, RelationID: 16385, OldKind: 'O', Old: row},
		{Kind: Begin, LSN: 1, Xid: 1},
		{Kind: Commit, LSN: 1, EndLSN: 2},
	} {
		name := m.Kind.String()
		if m.OldKind != 0 {
			name += fmt.Sprintf("With%c", m.OldKind)
		}
		b.Run(name, func(b *testing.B) {
			var e Encoder
			data := e.Append(nil, &m)
			d, into := NewDecoder(1), new(Message)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(data, into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIter(b *testing.B) {
	row := benchTuple()
	b.ReportAllocs()
	total := 0
	for b.Loop() {
		it := row.Iter()
		for _, value, ok := it.Next(); ok; _, value, ok = it.Next() {
			total += len(value)
		}
	}
	if total == 0 {
		b.Fatal("no values")
	}
}
