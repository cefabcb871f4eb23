package expr

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// Characters are counted as code points. A part of a text shares its argument's memory.

func stringFunctions() []*Function {
	return []*Function{
		{name: "CHAR_LENGTH|CHARACTER_LENGTH|LENGTH|LEN", sig: "s|y", result: integer, cost: 6, bind: func(c *Call, _ *Settings) (kernel, error) {
			if c.Args[0].Type().Kind == row.Bytes {
				return countKernel(func(b []byte) int64 { return int64(len(b)) }), nil
			}
			return countKernel(func(b []byte) int64 { return int64(utf8.RuneCount(b)) }), nil
		}},
		{name: "OCTET_LENGTH", sig: "s|y", result: integer, cost: 2, bind: bindCount(func(b []byte) int64 { return int64(len(b)) })},
		{name: "ASCII", sig: "s", result: integer, cost: 2, bind: bindCount(func(b []byte) int64 {
			if len(b) == 0 {
				return 0
			}
			return int64(b[0])
		})},
		{name: "UPPER|UCASE", sig: "s", result: returnsArg(0), bind: bindMap(appendUpper), cost: 20},
		{name: "LOWER|LCASE", sig: "s", result: returnsArg(0), bind: bindMap(appendLower), cost: 20},
		{name: "INITCAP", sig: "s", result: text, bind: bindMap(appendInitcap), cost: 30},
		{name: "REVERSE", sig: "s", result: returnsArg(0), bind: bindMap(appendReverse), cost: 20},
		{name: "TRIM", sig: "s|kss", result: text, bind: bindTrim("BOTH"), cost: 8},
		{name: "BTRIM", sig: "s?s", result: text, bind: bindTrim("BOTH"), cost: 8},
		{name: "LTRIM", sig: "s?s", result: text, bind: bindTrim("LEADING"), cost: 8},
		{name: "RTRIM", sig: "s?s", result: text, bind: bindTrim("TRAILING"), cost: 8},
		{name: "SUBSTRING|SUBSTR", sig: "si?i|yi?i", result: partType, nullable: true, bind: bindSubstring, cost: 8},
		{name: "LEFT", sig: "si", result: text, bind: bindLeft, cost: 6},
		{name: "RIGHT", sig: "si", result: text, bind: bindRight, cost: 6},
		{name: "LPAD", sig: "si?s", result: text, nullable: true, bind: bindPad(true), cost: 25, faults: true},
		{name: "RPAD", sig: "si?s", result: text, nullable: true, bind: bindPad(false), cost: 25, faults: true},
		{name: "REPEAT", sig: "si", result: text, bind: bindRepeat, cost: 25, faults: true},
		{name: "REPLACE", sig: "sss", result: text, bind: bindReplace, cost: 40, faults: true},
		{name: "TRANSLATE", sig: "sss", result: text, bind: bindTranslate, cost: 60},
		{name: "OVERLAY", sig: "ssi?i", result: text, bind: bindOverlay, cost: 30},
		{name: "POSITION", sig: "ss", result: integer, bind: bindPosition(0, 1), cost: 15},
		{name: "LOCATE", sig: "ss?i", result: integer, bind: bindPosition(0, 1), cost: 15},
		{name: "INSTR", sig: "ss?ii", result: integer, bind: bindPosition(1, 0), cost: 15, faults: true},
		{name: "STRPOS", sig: "ss", result: integer, bind: bindPosition(1, 0), cost: 15},
		{name: "STARTSWITH", sig: "ss|yy", result: boolean, bind: bindTest(bytes.HasPrefix), cost: 6},
		{name: "ENDSWITH", sig: "ss|yy", result: boolean, bind: bindTest(bytes.HasSuffix), cost: 6},
		{name: "CONTAINS", sig: "ss", result: boolean, bind: bindTest(bytes.Contains), cost: 12},
		{name: "CONCAT", sig: "s*", result: text, bind: bindConcat, cost: 15},
		{name: "CONCAT_WS", sig: "ss*", resolve: resolveConcatWS, bind: bindConcatWS, nulls: true, cost: 25},
		{name: "SPLIT_INDEX", sig: "ssi|sii", result: text, nullable: true, bind: bindSplitIndex, cost: 20},
		{name: "SPLIT_PART", sig: "ssi", result: text, bind: bindSplitPart, cost: 20, faults: true},
		{name: "CHR", sig: "i", result: text, cost: 5, bind: func(*Call, *Settings) (kernel, error) {
			return func(f *frame) {
				f.each(func(i int) {
					off := len(f.heap)
					if x := f.in[0].Int64[i]; x >= 0 {
						f.heap = utf8.AppendRune(f.heap, rune(x&255))
					}
					f.put(i, off)
				})
			}, nil
		}},
		{name: "COUNT_CHAR", sig: "ss", result: bigint, bind: bindCountChar, cost: 12},
	}
}

// concatType is STRING, or BYTES of BYTES.
func concatType(args []Expr) row.Type { return kind(args[0].Type().Kind) }

func partType(args []Expr) row.Type { return kind(args[0].Type().Kind) }

func bindCount(count func(b []byte) int64) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) { return countKernel(count), nil }
}

func countKernel(count func(b []byte) int64) kernel {
	return func(f *frame) {
		v, out := f.in[0], f.out.Int64
		f.each(func(i int) { out[i] = count(v.Bytes(i)) })
	}
}

// bindMap makes a function of one text that appends its result.
func bindMap(appendTo func(dst, b []byte) []byte) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			f.each(func(i int) {
				off := len(f.heap)
				f.heap = appendTo(f.heap, f.in[0].Bytes(i))
				f.put(i, off)
			})
		}, nil
	}
}

func bindTest(test func(b, part []byte) bool) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			a, b, out := f.in[0], f.in[1], f.out.Int64
			f.each(func(i int) { out[i] = bit(test(a.Bytes(i), b.Bytes(i))) })
		}, nil
	}
}

func appendUpper(dst, b []byte) []byte {
	off := len(dst)
	dst = append(dst, b...)
	for i, c := range dst[off:] {
		if c >= utf8.RuneSelf {
			return appendRunes(dst[:off], b, unicode.ToUpper)
		}
		if c-'a' < 26 {
			dst[off+i] = c - 32
		}
	}
	return dst
}

func appendLower(dst, b []byte) []byte {
	off := len(dst)
	dst = append(dst, b...)
	for i, c := range dst[off:] {
		if c >= utf8.RuneSelf {
			return appendRunes(dst[:off], b, unicode.ToLower)
		}
		if c-'A' < 26 {
			dst[off+i] = c + 32
		}
	}
	return dst
}

func appendRunes(dst, b []byte, to func(rune) rune) []byte {
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, b[0])
		} else {
			dst = utf8.AppendRune(dst, to(r))
		}
		b = b[size:]
	}
	return dst
}

func appendInitcap(dst, b []byte) []byte {
	inWord := false
	return appendRunes(dst, b, func(r rune) rune {
		letter := unicode.IsLetter(r) || unicode.IsDigit(r)
		switch {
		case letter && !inWord:
			r = unicode.ToUpper(r)
		case letter:
			r = unicode.ToLower(r)
		}
		inWord = letter
		return r
	})
}

func appendReverse(dst, b []byte) []byte {
	for len(b) > 0 {
		_, size := utf8.DecodeLastRune(b)
		dst = append(dst, b[len(b)-size:]...)
		b = b[:len(b)-size]
	}
	return dst
}

// runeOffset is where character n of b begins, or len(b) if there are fewer.
func runeOffset(b []byte, n int64) int {
	at := 0
	for n >= 8 && at+8 <= len(b) && binary.LittleEndian.Uint64(b[at:])&0x8080808080808080 == 0 {
		at += 8
		n -= 8
	}
	for ; n > 0 && at < len(b); n-- {
		if b[at] < utf8.RuneSelf {
			at++
			continue
		}
		_, size := utf8.DecodeRune(b[at:])
		at += size
	}
	return at
}

// runeOffsetBack is where the last n characters begin.
func runeOffsetBack(b []byte, n int64) int {
	at := len(b)
	for ; n > 0 && at > 0; n-- {
		_, size := utf8.DecodeLastRune(b[:at])
		at -= size
	}
	return at
}

// part makes row i the bytes from begin to end of argument 0's value.
func (f *frame) part(i, begin, end int) {
	s := f.in[0].Spans[i]
	f.out.Spans[i] = row.Span{Off: s.Off + uint32(begin), Len: uint32(end - begin)}
}

func bindSubstring(c *Call, _ *Settings) (kernel, error) {
	binary := c.Args[0].Type().Kind == row.Bytes
	return func(f *frame) {
		f.share(0)
		f.each(func(i int) {
			b, pos, n := f.in[0].Bytes(i), f.in[1].Int64[i], int64(math.MaxInt64)
			if len(f.in) > 2 {
				if n = f.in[2].Int64[i]; n < 0 {
					f.null(i)
					return
				}
			}
			begin := 0
			switch {
			case pos > 0 && binary:
				begin = int(min(pos-1, int64(len(b))))
			case pos > 0:
				begin = runeOffset(b, pos-1)
			case pos < 0 && binary:
				if begin = len(b) + int(max(pos, math.MinInt32)); begin < 0 {
					begin = len(b)
				}
			case pos < 0:
				if begin = runeOffsetBack(b, -pos); -pos > int64(utf8.RuneCount(b)) {
					begin = len(b)
				}
			}
			end := len(b)
			if binary {
				end = begin + int(min(n, int64(len(b)-begin)))
			} else if n < int64(len(b)-begin) {
				end = begin + runeOffset(b[begin:], n)
			}
			f.part(i, begin, end)
		})
	}, nil
}

func bindLeft(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.share(0)
		f.each(func(i int) { f.part(i, 0, runeOffset(f.in[0].Bytes(i), f.in[1].Int64[i])) })
	}, nil
}

func bindRight(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.share(0)
		f.each(func(i int) {
			b := f.in[0].Bytes(i)
			f.part(i, runeOffsetBack(b, f.in[1].Int64[i]), len(b))
		})
	}, nil
}

// bindTrim is TRIM(b), TRIM(where, chars, b), and LTRIM and RTRIM (b[, chars]).
func bindTrim(where string) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		at, chars := 0, -1
		side := where
		switch len(c.Args) {
		case 2:
			chars = 1
		case 3:
			side, at, chars = c.Args[0].(*Const).Text(), 2, 1
			if side != "BOTH" && side != "LEADING" && side != "TRAILING" {
				return nil, errs.New(errs.SQLTypeMismatch, "TRIM takes BOTH, LEADING or TRAILING, not %s", side)
			}
		}
		return func(f *frame) {
			f.share(at)
			f.each(func(i int) {
				b := f.in[at].Bytes(i)
				set := []byte(" ")
				if chars >= 0 {
					set = f.in[chars].Bytes(i)
				}
				begin, end := 0, len(b)
				for side != "TRAILING" && begin < end {
					_, size := utf8.DecodeRune(b[begin:end])
					if !bytes.Contains(set, b[begin:begin+size]) {
						break
					}
					begin += size
				}
				for side != "LEADING" && begin < end {
					_, size := utf8.DecodeLastRune(b[begin:end])
					if !bytes.Contains(set, b[end-size:end]) {
						break
					}
					end -= size
				}
				s := f.in[at].Spans[i]
				f.out.Spans[i] = row.Span{Off: s.Off + uint32(begin), Len: uint32(end - begin)}
			})
		}, nil
	}
}

func bindPad(left bool) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			f.each(func(i int) {
				b, n, pad := f.in[0].Bytes(i), f.in[1].Int64[i], []byte(" ")
				if len(f.in) > 2 {
					pad = f.in[2].Bytes(i)
				}
				have := int64(utf8.RuneCount(b))
				if n < 0 || len(pad) == 0 {
					f.null(i)
					return
				}
				off := len(f.heap)
				if n <= have {
					f.heap = append(f.heap, b[:runeOffset(b, n)]...)
					f.put(i, off)
					return
				}
				if n > maxValue {
					f.fail(i, errs.EvalArgument, "the result is larger than 16 MiB")
					return
				}
				if !left {
					f.heap = append(f.heap, b...)
				}
				for missing, width := n-have, int64(utf8.RuneCount(pad)); missing > 0; missing -= width {
					if missing < width {
						pad = pad[:runeOffset(pad, missing)]
					}
					f.heap = append(f.heap, pad...)
				}
				if left {
					f.heap = append(f.heap, b...)
				}
				f.put(i, off)
			})
		}, nil
	}
}

func bindRepeat(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			b, n := f.in[0].Bytes(i), max(f.in[1].Int64[i], 0)
			off := len(f.heap)
			if len(b) > 0 && n > int64(maxValue/len(b)) {
				f.fail(i, errs.EvalArgument, "the result is larger than 16 MiB")
				return
			}
			if len(b) == 0 {
				n = 0
			}
			for range n {
				f.heap = append(f.heap, b...)
			}
			f.put(i, off)
		})
	}, nil
}

func bindReplace(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			b, old, by := f.in[0].Bytes(i), f.in[1].Bytes(i), f.in[2].Bytes(i)
			off := len(f.heap)
			for len(old) > 0 && len(f.heap)-off <= maxValue {
				k := bytes.Index(b, old)
				if k < 0 {
					break
				}
				f.heap = append(append(f.heap, b[:k]...), by...)
				b = b[k+len(old):]
			}
			f.heap = append(f.heap, b...)
			f.put(i, off)
		})
	}, nil
}

// bindTranslate: each character of the second text becomes the one at its place in the third, or goes.
func bindTranslate(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			b, from, to := f.in[0].Bytes(i), f.in[1].Bytes(i), f.in[2].Bytes(i)
			off := len(f.heap)
			for len(b) > 0 {
				_, size := utf8.DecodeRune(b)
				c := b[:size]
				b = b[size:]
				k := bytes.Index(from, c)
				if k < 0 {
					f.heap = append(f.heap, c...)
					continue
				}
				at := runeOffset(to, int64(utf8.RuneCount(from[:k])))
				f.heap = append(f.heap, to[at:at+runeOffset(to[at:], 1)]...)
			}
			f.put(i, off)
		})
	}, nil
}

// bindOverlay puts a text over the characters from a place on, as many as it has or as are said.
func bindOverlay(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			b, by, pos := f.in[0].Bytes(i), f.in[1].Bytes(i), f.in[2].Int64[i]
			n := int64(utf8.RuneCount(by))
			if len(f.in) > 3 {
				n = f.in[3].Int64[i]
			}
			off := len(f.heap)
			if pos <= 0 || pos > int64(utf8.RuneCount(b)) {
				f.heap = append(f.heap, b...)
				f.put(i, off)
				return
			}
			begin := runeOffset(b, pos-1)
			f.heap = append(append(f.heap, b[:begin]...), by...)
			if n >= 0 {
				f.heap = append(f.heap, b[begin+runeOffset(b[begin:], n):]...)
			}
			f.put(i, off)
		})
	}, nil
}

// bindPosition: where the n-th occurrence of a part begins, from a place on; 0 if there is none.
func bindPosition(part, whole int) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			f.each(func(i int) {
				b, p := f.in[whole].Bytes(i), f.in[part].Bytes(i)
				from, nth := int64(1), int64(1)
				if len(f.in) > 2 {
					from = f.in[2].Int64[i]
				}
				if len(f.in) > 3 {
					if nth = f.in[3].Int64[i]; nth <= 0 {
						f.fail(i, errs.EvalArgument, "occurrences are counted from 1")
						return
					}
				}
				f.out.Int64[i] = 0
				if from < 1 {
					return
				}
				at := runeOffset(b, from-1)
				for {
					k := bytes.Index(b[at:], p)
					if k < 0 {
						return
					}
					if at += k; nth == 1 {
						break
					}
					if nth--; at == len(b) {
						return
					}
					at += runeOffset(b[at:], 1)
				}
				f.out.Int64[i] = int64(utf8.RuneCount(b[:at])) + 1
			})
		}, nil
	}
}

func bindConcat(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			off := len(f.heap)
			for _, v := range f.in {
				f.heap = append(f.heap, v.Bytes(i)...)
			}
			f.put(i, off)
		})
	}, nil
}

func resolveConcatWS(f *Function, args []Expr) (Expr, error) {
	out, ok := f.match(args)
	if !ok {
		return nil, f.mismatch(args)
	}
	c := f.typed(out, kind(row.String))
	c.T.NotNull = out[0].Type().NotNull
	return c, nil
}

// bindConcatWS leaves out NULLs; only a NULL between makes the result NULL.
func bindConcatWS(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			if f.in[0].Nulls.Is(i) {
				f.null(i)
				return
			}
			off, first := len(f.heap), true
			for _, v := range f.in[1:] {
				if v.Nulls.Is(i) {
					continue
				}
				if !first {
					f.heap = append(f.heap, f.in[0].Bytes(i)...)
				}
				first = false
				f.heap = append(f.heap, v.Bytes(i)...)
			}
			f.put(i, off)
		})
	}, nil
}

// nthPart is part n, from 0, of b between separators.
func nthPart(b, sep []byte, n int64) (begin, end int, ok bool) {
	if n < 0 {
		return 0, 0, false
	}
	if len(sep) == 0 {
		return 0, len(b), n == 0
	}
	at := 0
	for {
		var k int
		if len(sep) == 1 {
			k = bytes.IndexByte(b[at:], sep[0])
		} else {
			k = bytes.Index(b[at:], sep)
		}
		switch {
		case n == 0 && k < 0:
			return at, len(b), true
		case n == 0:
			return at, at + k, true
		case k < 0:
			return 0, 0, false
		}
		at += k + len(sep)
		n--
	}
}

func bindSplitIndex(c *Call, _ *Settings) (kernel, error) {
	code := c.Args[1].Type().Kind != row.String // the separator as the number of its character
	return func(f *frame) {
		f.share(0)
		var buf [4]byte
		f.each(func(i int) {
			var sep []byte
			if code {
				x := f.in[1].Int64[i]
				if x < 0 || x > 255 {
					f.null(i)
					return
				}
				sep = utf8.AppendRune(buf[:0], rune(x))
			} else {
				sep = f.in[1].Bytes(i)
			}
			b := f.in[0].Bytes(i)
			begin, end, ok := nthPart(b, sep, f.in[2].Int64[i])
			if !ok || len(b) == 0 {
				f.null(i)
				return
			}
			f.part(i, begin, end)
		})
	}, nil
}

// bindSplitPart counts from 1, from the end if the number is negative, and is empty where there is no such part.
func bindSplitPart(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.share(0)
		f.each(func(i int) {
			b, sep, n := f.in[0].Bytes(i), f.in[1].Bytes(i), f.in[2].Int64[i]
			if n == 0 {
				f.fail(i, errs.EvalArgument, "parts are counted from 1")
				return
			}
			if n < 0 {
				parts := int64(1)
				if len(sep) > 0 {
					parts += int64(bytes.Count(b, sep))
				}
				n += parts + 1
			}
			begin, end, ok := nthPart(b, sep, n-1)
			if !ok {
				begin, end = 0, 0
			}
			f.part(i, begin, end)
		})
	}, nil
}

// bindCountChar is ours: how often a text occurs in another, counted without overlaps.
func bindCountChar(c *Call, _ *Settings) (kernel, error) {
	if k, ok := c.Args[1].(*Const); ok && !k.IsNull() && len(k.Text()) == 1 {
		sep := []byte(k.Text())
		return func(f *frame) {
			v, out := f.in[0], f.out.Int64
			if f.sel == nil {
				for i := range out {
					out[i] = int64(bytes.Count(v.Bytes(i), sep))
				}
				return
			}
			for _, i := range f.sel {
				out[i] = int64(bytes.Count(v.Bytes(int(i)), sep))
			}
		}, nil
	}
	return func(f *frame) {
		f.each(func(i int) {
			sep := f.in[1].Bytes(i)
			if len(sep) > 0 {
				f.out.Int64[i] = int64(bytes.Count(f.in[0].Bytes(i), sep))
			} else {
				f.out.Int64[i] = 0
			}
		})
	}, nil
}
