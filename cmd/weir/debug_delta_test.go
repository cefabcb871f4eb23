package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/row"
	keyed "github.com/weirstream/weir/engine/state"
	"github.com/weirstream/weir/engine/state/disk"
	"github.com/weirstream/weir/internal/env"
)

// TestDebugDelta: what package disk writes is read from the description of its bytes.
func TestDebugDelta(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.dir, "pipelines")
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := disk.Open(env.Real(nil), dir, disk.Options{IngestRecords: 3})
	fail(err)
	p, err := d.Pipeline("orders")
	fail(err)
	_, err = p.Recover(0)
	fail(err)
	s, err := keyed.New(keyed.Options{Backing: p.Backing()})
	fail(err)
	defer s.Close()
	types := []row.Type{{Kind: row.BigInt, NotNull: true}}
	codec := row.GroupKey(types)
	m, err := s.Map("sums", codec, 8, nil)
	fail(err)
	for c := uint64(1); c <= 3; c++ {
		b := row.NewBuilder(types)
		b.Reset()
		for i := range c {
			b.Cols[0].Int64 = append(b.Cols[0].Int64, int64(i))
			b.EndRow(1)
		}
		batch := b.Seal()
		var keys row.Keys
		codec.Hash(&keys, batch, []int{0})
		refs := make([]keyed.Ref, batch.Len)
		fail(m.FindOrAdd(&keys, batch, refs))
		for _, r := range refs {
			m.Touch(r)
			m.Value(r)[0]++
		}
		s.NextEpoch()
		var delta keyed.Delta
		s.TakeDelta(&delta, c)
		delta.Sort()
		_, err := p.Prepare(t.Context(), c, []*keyed.Delta{&delta}, []byte("rows"), []byte("position"))
		fail(err)
	}
	fail(d.Close())

	file := filepath.Join(dir, "log", "000000000001.delta")
	var rows []deltaRow
	fail(json.Unmarshal([]byte(f.want(t, 0, "debug", "delta", file, "-o", "json")), &rows))
	if len(rows) != 3 || rows[2].Table != "000000000001.table" || rows[2].TableBytes == 0 || rows[2].Records != 3 || rows[1].Table != "" || rows[1].Pipeline != "orders" || rows[1].Checkpoint != 2 || rows[1].Previous != 1 || rows[1].Records != 2 ||
		rows[1].Meta != 8 || rows[1].Outbox != 4 || rows[1].Offset != rows[0].Bytes || len(rows[1].Digest) != 32 {
		t.Errorf("frames %+v", rows)
	}
	var records []deltaRecord
	fail(json.Unmarshal([]byte(f.want(t, 0, "debug", "delta", file, "--checkpoint", "2", "-o", "json")), &records))
	if len(records) != 2 || records[0].Op != "set" || records[0].State != 1 || len(records[0].Key) != 28 || records[0].Value == "" {
		t.Errorf("records %+v", records)
	}
	fail(json.Unmarshal([]byte(f.want(t, 0, "debug", "delta", file, "--checkpoint", "3", "-o", "json")), &records))
	if len(records) != 3 || records[2].Op != "set" || records[2].State != 1 || len(records[2].Key) != 28 || len(records[2].Value) != 16 {
		t.Errorf("records of a table %+v", records)
	}
	table := filepath.Join(dir, "log", rows[2].Table)
	whole, err := os.ReadFile(table)
	fail(err)
	whole[len(whole)/2]++
	fail(os.WriteFile(table, whole, 0o600))
	f.want(t, 1, "debug", "delta", file, "--checkpoint", "3")
	whole, err = os.ReadFile(file)
	fail(err)
	fail(os.WriteFile(file, whole[:len(whole)-1], 0o600))
	if got := f.want(t, 1, "debug", "delta", file); !strings.Contains(got, "orders") {
		t.Errorf("a cut file shows\n%s", got)
	}
	whole[len(whole)-1]++
	fail(os.WriteFile(file, whole, 0o600))
	f.want(t, 1, "debug", "delta", file)
	f.want(t, 2, "debug", "delta", file+"x")
}
