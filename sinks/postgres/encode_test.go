package postgres

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/weirstream/weir/engine/changelog"
)

// sink is a connection that keeps what is written to it.
type sink struct {
	net.Conn
	bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) { return s.Buffer.Write(p) }
func (s *sink) Read(p []byte) (int, error)  { return s.Buffer.Read(p) }

// TestCopyHuge: a huge row sent in pieces is the row that is sent whole, in both formats.
func TestCopyHuge(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		cols := []column{{name: `"id"`}, {}, {name: `"body"`}, {name: `"raw"`}, {name: `"last"`}}
		img := changelog.Image(binary.BigEndian.AppendUint16(nil, uint16(len(cols))))
		for range cols {
			if rng.IntN(4) == 0 {
				img = append(img, changelog.ValueNull)
				continue
			}
			v := make([]byte, []int{0, 3, 200 << 10, 1 << 20}[rng.IntN(4)])
			for i := range v {
				v[i] = "abc\\\n\t\rxyz"[rng.IntN(10)]
			}
			img = append(binary.BigEndian.AppendUint32(append(img, changelog.ValueText), uint32(len(v))), v...)
		}
		for _, isBinary := range []bool{false, true} {
			tab := &table{cols: cols, rel: &changelog.Relation{Binary: isBinary}}
			want := appendCopyText(nil, img, cols)
			if isBinary {
				want = appendCopyBinary(nil, img, cols, 4)
			}
			to := &sink{}
			a := &applier{w: &wire{conn: to}}
			a.w.copyStart()
			if err := a.copyHuge(tab, img, 4); err != nil {
				t.Fatal(err)
			}
			a.w.copyEnd()
			if err := a.w.flush(); err != nil {
				t.Fatal(err)
			}
			var got []byte
			for out := to.Bytes(); len(out) > 0 && out[0] == 'd'; {
				n := 1 + int(binary.BigEndian.Uint32(out[1:]))
				got, out = append(got, out[5:n]...), out[n:]
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("binary %v: %d bytes, want %d", isBinary, len(got), len(want))
			}
		}
	}
}
