package expr

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// randomFunctions differ from row to row and from run to run; those with a seed argument differ from row to row alone.
func randomFunctions() []*Function {
	return []*Function{
		{name: "RAND", sig: "?i", result: double, volatile: randomFunction, cost: 5, bind: func(c *Call, _ *Settings) (kernel, error) {
			seeded := seededRand{}
			return func(f *frame) {
				f.each(func(i int) {
					f.out.Float64[i] = seeded.of(f, len(c.Args) > 0, i).Float64()
				})
			}, nil
		}},
		{name: "RAND_INTEGER", sig: "i?i", result: integer, volatile: randomFunction, faults: true, cost: 5, bind: func(c *Call, _ *Settings) (kernel, error) {
			seeded := seededRand{}
			return func(f *frame) {
				bounds := f.in[len(f.in)-1]
				f.each(func(i int) {
					bound := bounds.Int64[i]
					if bound <= 0 || bound > 1<<31-1 {
						f.fail(i, errs.EvalArgument, "the bound of a random number is a positive INT")
						return
					}
					f.out.Int64[i] = seeded.of(f, len(c.Args) > 1, i).Int64N(bound)
				})
			}, nil
		}},
		{name: "UUID", result: text, notNull: true, volatile: randomFunction, cost: 40, bind: func(*Call, *Settings) (kernel, error) {
			return func(f *frame) {
				t := kind(row.UUID)
				var v row.Vector
				f.each(func(i int) {
					var b [16]byte
					binary.BigEndian.PutUint64(b[:], f.random.Uint64())
					binary.BigEndian.PutUint64(b[8:], f.random.Uint64())
					b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80 // version 4, RFC's variant
					v.Truncate()
					v.AppendBytes(b[:])
					off := len(f.heap)
					f.heap = row.AppendText(f.heap, t, &v, 0, nil)
					f.put(i, off)
				})
			}, nil
		}},
	}
}

// seededRand is the sequence of a seed that is an argument, or the program's.
type seededRand struct {
	seed int64
	r    *rand.Rand
}

func (s *seededRand) of(f *frame, seeded bool, i int) *rand.Rand {
	if !seeded {
		return f.random
	}
	if seed := f.in[0].Int64[i]; s.r == nil || seed != s.seed {
		s.seed, s.r = seed, rand.New(rand.NewPCG(uint64(seed), 0))
	}
	return s.r
}
