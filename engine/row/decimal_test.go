package row

import (
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// anyInt128 is a random number with any count of digits, edges among them.
func anyInt128(r *rand.Rand) Int128 {
	edges := []Int128{{}, {0, 1}, {-1, ^uint64(0)}, {1<<63 - 1, ^uint64(0)}, {-1 << 63, 0}, {0, 1 << 63}, {-1, 1 << 63}, {1, 0}, {0, ^uint64(0)}}
	switch r.IntN(8) {
	case 0:
		return edges[r.IntN(len(edges))]
	case 1:
		d := Pow10(r.IntN(39))
		if r.IntN(2) == 0 {
			d, _ = d.Sub(Int128From(r.Int64N(3) - 1))
		}
		return d
	}
	d := Int128{int64(r.Uint64()), r.Uint64()}
	for s := r.IntN(128); s > 0; s-- {
		d = Int128{d.Hi >> 1, d.Lo>>1 | uint64(d.Hi)<<63}
	}
	return d
}

func bigPow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// bigQuoHalfUp is the naive second answer for every rounded quotient.
func bigQuoHalfUp(a, b *big.Int) *big.Int {
	negative := a.Sign()*b.Sign() < 0
	x, y := new(big.Int).Abs(a), new(big.Int).Abs(b)
	q, rem := new(big.Int).QuoRem(x, y, new(big.Int))
	if rem.Lsh(rem, 1).Cmp(y) >= 0 {
		q.Add(q, big.NewInt(1))
	}
	if negative {
		q.Neg(q)
	}
	return q
}

func fits128(b *big.Int) bool {
	low := new(big.Int).Lsh(big.NewInt(-1), 127)
	high := new(big.Int).Sub(new(big.Int).Neg(low), big.NewInt(1))
	return b.Cmp(low) >= 0 && b.Cmp(high) <= 0
}

func TestInt128(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	check := func(what string, a, b Int128, got Int128, ok bool, want *big.Int) {
		t.Helper()
		if ok != fits128(want) || ok && got.Big().Cmp(want) != 0 {
			t.Fatalf("%s of %s and %s: %s %v, want %s", what, a.Big(), b.Big(), got.Big(), ok, want)
		}
	}
	for range 200000 {
		a, b := anyInt128(r), anyInt128(r)
		x, y := a.Big(), b.Big()
		got, ok := a.Add(b)
		check("sum", a, b, got, ok, new(big.Int).Add(x, y))
		got, ok = a.Sub(b)
		check("difference", a, b, got, ok, new(big.Int).Sub(x, y))
		got, ok = a.Mul(b)
		check("product", a, b, got, ok, new(big.Int).Mul(x, y))
		check("64-bit product", a, b, MulInt64(int64(a.Lo), int64(b.Lo)), true, new(big.Int).Mul(big.NewInt(int64(a.Lo)), big.NewInt(int64(b.Lo))))
		n := r.IntN(39)
		got, ok = a.MulPow10(n)
		check("power", a, Int128From(int64(n)), got, ok, new(big.Int).Mul(x, bigPow10(n)))
		n = r.IntN(42)
		check("rounded power", a, Int128From(int64(n)), a.QuoPow10(n), true, bigQuoHalfUp(x, bigPow10(n)))
		n = r.IntN(39)
		got, ok = a.MulRound(b, n)
		check("rounded product", a, b, got, ok, bigQuoHalfUp(new(big.Int).Mul(x, y), bigPow10(n)))
		if got, want := a.Fits(n), new(big.Int).Abs(x).Cmp(bigPow10(n)) < 0; got != want && n > 0 {
			t.Fatalf("%s fits %d digits: %v", x, n, got)
		}
		if b == (Int128{}) {
			continue
		}
		q, rem := a.QuoRem(b)
		wq, wr := new(big.Int).QuoRem(x, y, new(big.Int))
		if !(a == Int128{-1 << 63, 0} && b == Int128From(-1)) {
			check("quotient", a, b, q, true, wq)
			check("remainder", a, b, rem, true, wr)
		}
		n = r.IntN(50)
		got, ok = a.QuoRound(b, n)
		if want := bigQuoHalfUp(new(big.Int).Mul(x, bigPow10(n)), y); n <= 38 || fits128(want) && ok {
			check("rounded quotient", a, b, got, ok, want)
		}
	}
}

func TestDecimalText(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 2))
	for range 100000 {
		d, scale := anyInt128(r), r.IntN(39)
		text := AppendDecimal(nil, d, scale)
		want := d.Big().String()
		sign := ""
		if strings.HasPrefix(want, "-") {
			sign, want = "-", want[1:]
		}
		if len(want) <= scale {
			want = strings.Repeat("0", scale-len(want)+1) + want
		}
		if scale > 0 {
			want = want[:len(want)-scale] + "." + want[len(want)-scale:]
		}
		if string(text) != sign+want {
			t.Fatalf("%s of scale %d is %s", d.Big(), scale, text)
		}
		back, err := ParseDecimal(text, 38, scale)
		if d.Fits(38) != (err == nil) || err == nil && back != d {
			t.Fatalf("%s comes back as %s, %v", text, back.Big(), err)
		}
		f := d.Float64(scale)
		if exact, _ := new(big.Rat).SetFrac(d.Big(), bigPow10(scale)).Float64(); f != exact {
			t.Fatalf("%s as a double is %v, want %v", text, f, exact)
		}
	}
}
