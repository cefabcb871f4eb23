package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// table makes deltas of records of about 100 bytes.
type table struct {
	s     *state.Store
	m     *state.Map
	codec *row.KeyCodec
	width int
}

func newTable(b testing.TB, backing state.Backing) *table {
	t := &table{codec: row.GroupKey(types), width: 86}
	var err error
	t.s, err = state.New(state.Options{Backing: backing})
	must(b, err)
	t.m, err = t.s.Map("table", t.codec, t.width, nil)
	must(b, err)
	return t
}

func (t *table) delta(b testing.TB, r *rand.Rand, checkpoint uint64, records int, keys int64) *state.Delta {
	var k row.Keys
	refs := make([]state.Ref, 4096)
	for done := 0; done < records; {
		rb := row.NewBuilder(types)
		rb.Reset()
		n := min(4096, records-done)
		for range n {
			rb.Cols[0].Int64 = append(rb.Cols[0].Int64, r.Int64N(keys))
			rb.EndRow(1)
		}
		batch := rb.Seal()
		t.codec.Hash(&k, batch, []int{0})
		must(b, t.m.FindOrAdd(&k, batch, refs[:n]))
		for _, ref := range refs[:n] {
			t.m.Touch(ref)
			v := t.m.Value(ref)
			for i := 0; i+8 <= len(v); i += 8 {
				binary.LittleEndian.PutUint64(v[i:], r.Uint64()&0xffffff)
			}
		}
		done += n
	}
	d := &state.Delta{}
	t.s.TakeDelta(d, checkpoint)
	d.Sort()
	return d
}

func count(d *state.Delta) (n int) {
	_ = d.Records(func(state.Record) error { n++; return nil })
	return n
}

func BenchmarkPrepareAndAbsorb(b *testing.B) {
	for _, c := range []struct {
		name    string
		records int
		ingest  int
	}{{"10k/batch", 10_000, 1 << 30}, {"10k/table", 10_000, 1}, {"500k/batch", 500_000, 1 << 30}, {"500k/table", 500_000, 1}} {
		b.Run(c.name, func(b *testing.B) {
			o := Options{IngestRecords: c.ingest}
			if c.ingest > c.records {
				o.MemTableBytes = 256 << 20 // else its size makes it a table
			}
			d, err := Open(testEnv(vfs.Default), b.TempDir(), o)
			must(b, err)
			p, err := d.Pipeline("bench")
			must(b, err)
			_, err = p.Recover(0)
			must(b, err)
			r := rand.New(rand.NewPCG(1, 1))
			t := newTable(b, nil)
			defer t.s.Close()
			var prepare, prepareCPU, absorbCPU, absorb time.Duration
			records, check := 0, uint64(0)
			b.ResetTimer()
			for b.Loop() {
				check++
				b.StopTimer()
				delta := t.delta(b, r, check, c.records, 1<<40)
				records += count(delta)
				b.StartTimer()
				at, used := time.Now(), cpu()
				_, err := p.Prepare(context.Background(), check, []*state.Delta{delta}, nil, nil)
				must(b, err)
				prepare, prepareCPU = prepare+time.Since(at), prepareCPU+cpu()-used
				at, used = time.Now(), cpu()
				p.Commit(check)
				must(b, p.settle())
				absorb, absorbCPU = absorb+time.Since(at), absorbCPU+cpu()-used
			}
			b.StopTimer()
			n := float64(check)
			b.ReportMetric(prepare.Seconds()*1000/n, "ms/prepare")
			b.ReportMetric(float64(prepareCPU.Microseconds())/float64(records), "prepare-cpu-µs/record")
			b.ReportMetric(absorb.Seconds()*1000/n, "ms/absorb")
			b.ReportMetric(float64(absorbCPU.Microseconds())/float64(records), "absorb-cpu-µs/record")
			must(b, d.Close())
		})
	}
}

func BenchmarkBacking(b *testing.B) {
	d, err := Open(testEnv(vfs.Default), b.TempDir(), Options{})
	must(b, err)
	p, err := d.Pipeline("bench")
	must(b, err)
	_, err = p.Recover(0)
	must(b, err)
	r := rand.New(rand.NewPCG(1, 1))
	t := newTable(b, p.Backing())
	defer t.s.Close()
	var keys [][]byte
	for c := uint64(1); c <= 8; c++ {
		delta := t.delta(b, r, c, 250_000, 1<<40)
		_ = delta.Records(func(rec state.Record) error {
			keys = append(keys, slices.Clone(rec.Key))
			return nil
		})
		_, err := p.Prepare(context.Background(), c, []*state.Delta{delta}, nil, nil)
		must(b, err)
		p.Commit(c)
		must(b, p.settle())
	}
	must(b, d.flush())
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	back := p.Backing()
	run := func(name string, sorted bool, one func(key []byte)) {
		b.Run(name, func(b *testing.B) {
			ask := slices.Clone(keys[:200_000])
			if sorted {
				for i := 0; i+1000 <= len(ask); i += 1000 { // as a batch does
					slices.SortFunc(ask[i:i+1000], slices.Compare)
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				one(ask[i%len(ask)])
				i++
			}
		})
	}
	var dst []byte
	for _, sorted := range []bool{false, true} {
		order := map[bool]string{false: "random", true: "sorted"}[sorted]
		run("hit/"+order, sorted, func(k []byte) {
			v, ok, err := back.Get(dst[:0], k)
			if !ok || err != nil {
				b.Fatal(ok, err)
			}
			dst = v
		})
		run("miss/"+order, sorted, func(k []byte) {
			dst = append(append(dst[:0], k...), 1)
			if _, ok, err := back.Get(dst, dst); ok || err != nil {
				b.Fatal(ok, err)
			}
		})
		run("scan/"+order, sorted, func(k []byte) {
			n := 0
			must(b, back.Scan(k, func(k, v []byte) error { n++; return nil }))
			if n != 1 {
				b.Fatal(n)
			}
		})
	}
	b.Logf("%+v\n%s", d.Stats(), d.db.Metrics())
	must(b, d.Close())
}

// BenchmarkRecover replays a log of 256 MiB, of small checkpoints and of large ones.
func BenchmarkRecover(b *testing.B) {
	for _, records := range []int{5_000, 250_000} {
		b.Run(fmt.Sprint(records), func(b *testing.B) {
			dir := b.TempDir()
			d, err := Open(testEnv(vfs.Default), dir, Options{LogBytes: 1 << 40})
			must(b, err)
			p, err := d.Pipeline("bench")
			must(b, err)
			_, err = p.Recover(0)
			must(b, err)
			r := rand.New(rand.NewPCG(1, 1))
			t := newTable(b, nil)
			defer t.s.Close()
			c, total := uint64(0), 0
			for d.Stats().LogBytes < 256<<20 {
				c++
				delta := t.delta(b, r, c, records, 1<<40)
				total += count(delta)
				_, err := p.Prepare(context.Background(), c, []*state.Delta{delta}, nil, nil)
				must(b, err)
			}
			must(b, d.Close())
			for b.Loop() {
				at, used := time.Now(), cpu()
				d, err := Open(testEnv(vfs.Default), dir, Options{LogBytes: 1 << 40})
				must(b, err)
				opened := time.Since(at)
				p, err := d.Pipeline("bench")
				must(b, err)
				_, err = p.Recover(c)
				must(b, err)
				b.ReportMetric(opened.Seconds()*1000, "ms/open")
				b.ReportMetric(time.Since(at).Seconds(), "s/recovery")
				b.ReportMetric(float64((cpu()-used).Microseconds())/float64(total), "cpu-µs/record")
				b.StopTimer()
				must(b, p.clear()) // Pebble has nothing of it again
				must(b, d.Close())
				b.StartTimer()
			}
		})
	}
}
