package expr

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"math/bits"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
)

// codingFunctions turn values into other spellings: digests, base 64, hexadecimal, URLs, character sets.
func codingFunctions() []*Function {
	binary := func([]Expr) row.Type { return kind(row.Bytes) }
	fs := []*Function{
		{name: "SHA2", sig: "si", result: text, nullable: true, bind: bindSHA2, cost: 300},
		{name: "HASH_CODE", sig: "s", result: integer, bind: bindCount(javaHash), cost: 60},
		{name: "TO_BASE64", sig: "s|y", result: text, cost: 60, bind: bindMap(func(dst, b []byte) []byte { return base64.StdEncoding.AppendEncode(dst, b) })},
		{name: "FROM_BASE64", sig: "s", result: text, nullable: true, cost: 60, bind: bindMapOr(func(dst, b []byte) ([]byte, bool) {
			out, err := base64.StdEncoding.AppendDecode(dst, b)
			return out, err == nil
		})},
		{name: "HEX", sig: "i|s|y", result: text, cost: 40, bind: bindHex},
		{name: "UNHEX", sig: "s", result: binary, nullable: true, cost: 40, bind: bindMapOr(func(dst, b []byte) ([]byte, bool) {
			if len(b)%2 == 1 {
				b = append([]byte{'0'}, b...)
			}
			out, err := hex.AppendDecode(dst, b)
			return out, err == nil
		})},
		{name: "BIN", sig: "i", result: text, cost: 30, bind: func(*Call, *Settings) (kernel, error) {
			return func(f *frame) {
				f.each(func(i int) {
					off := len(f.heap)
					f.heap = strconv.AppendUint(f.heap, uint64(f.in[0].Int64[i]), 2)
					f.put(i, off)
				})
			}, nil
		}},
		{name: "ENCODE", sig: "ss", result: binary, nullable: true, bind: bindCharset(encodeTo), cost: 40},
		{name: "DECODE", sig: "ys", result: text, nullable: true, bind: bindCharset(decodeFrom), cost: 40},
		{name: "URL_ENCODE", sig: "s", result: text, cost: 60, bind: bindMap(func(dst, b []byte) []byte { return append(dst, url.QueryEscape(string(b))...) })},
		{name: "URL_DECODE", sig: "s", result: text, nullable: true, cost: 60, bind: bindMapOr(func(dst, b []byte) ([]byte, bool) {
			s, err := url.QueryUnescape(string(b))
			return append(dst, s...), err == nil
		})},
		{name: "PARSE_URL", sig: "ss?s", result: text, nullable: true, bind: bindParseURL, cost: 60},
	}
	for name, sum := range map[string]func(dst, b []byte) []byte{
		"MD5":    func(dst, b []byte) []byte { s := md5.Sum(b); return hex.AppendEncode(dst, s[:]) },
		"SHA1":   func(dst, b []byte) []byte { s := sha1.Sum(b); return hex.AppendEncode(dst, s[:]) },
		"SHA224": func(dst, b []byte) []byte { s := sha256.Sum224(b); return hex.AppendEncode(dst, s[:]) },
		"SHA256": func(dst, b []byte) []byte { s := sha256.Sum256(b); return hex.AppendEncode(dst, s[:]) },
		"SHA384": func(dst, b []byte) []byte { s := sha512.Sum384(b); return hex.AppendEncode(dst, s[:]) },
		"SHA512": func(dst, b []byte) []byte { s := sha512.Sum512(b); return hex.AppendEncode(dst, s[:]) },
	} {
		fs = append(fs, &Function{name: name, sig: "s|y", result: text, bind: bindMap(sum), cost: 300})
	}
	return fs
}

// bindMapOr is bindMap of a function that has no result for some values: NULL.
func bindMapOr(appendTo func(dst, b []byte) ([]byte, bool)) func(*Call, *Settings) (kernel, error) {
	return func(*Call, *Settings) (kernel, error) {
		return func(f *frame) {
			f.each(func(i int) {
				off := len(f.heap)
				out, ok := appendTo(f.heap, f.in[0].Bytes(i))
				if !ok {
					f.null(i)
					return
				}
				f.heap = out
				f.put(i, off)
			})
		}, nil
	}
}

func bindSHA2(*Call, *Settings) (kernel, error) {
	return func(f *frame) {
		f.each(func(i int) {
			off, b := len(f.heap), f.in[0].Bytes(i)
			switch f.in[1].Int64[i] {
			case 224:
				s := sha256.Sum224(b)
				f.heap = hex.AppendEncode(f.heap, s[:])
			case 256, 0:
				s := sha256.Sum256(b)
				f.heap = hex.AppendEncode(f.heap, s[:])
			case 384:
				s := sha512.Sum384(b)
				f.heap = hex.AppendEncode(f.heap, s[:])
			case 512:
				s := sha512.Sum512(b)
				f.heap = hex.AppendEncode(f.heap, s[:])
			default:
				f.null(i)
				return
			}
			f.put(i, off)
		})
	}, nil
}

// javaHash is String.hashCode, over UTF-16.
func javaHash(b []byte) int64 {
	h := int32(0)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		b = b[size:]
		if r >= 0x10000 {
			hi, lo := utf16.EncodeRune(r)
			h = (h*31+hi)*31 + lo
		} else {
			h = h*31 + r
		}
	}
	return int64(h)
}

func bindHex(c *Call, _ *Settings) (kernel, error) {
	if c.Args[0].Type().Kind.Integer() {
		return func(f *frame) {
			f.each(func(i int) {
				off := len(f.heap)
				f.heap = strconv.AppendUint(f.heap, uint64(f.in[0].Int64[i]), 16)
				upperASCII(f.heap[off:])
				f.put(i, off)
			})
		}, nil
	}
	return bindMap(func(dst, b []byte) []byte {
		off := len(dst)
		dst = hex.AppendEncode(dst, b)
		upperASCII(dst[off:])
		return dst
	})(nil, nil)
}

func upperASCII(b []byte) {
	for i, c := range b {
		if c-'a' < 26 {
			b[i] = c - 32
		}
	}
}

// bindCharset is ENCODE and DECODE; a character set that Java's standard does not promise is NULL.
func bindCharset(code func(dst, b []byte, charset string) ([]byte, bool)) func(*Call, *Settings) (kernel, error) {
	return func(c *Call, _ *Settings) (kernel, error) {
		constant, known := constText(c.Args[1])
		name := strings.ToUpper(string(constant))
		return func(f *frame) {
			f.each(func(i int) {
				charset := name
				if !known {
					charset = strings.ToUpper(string(f.in[1].Bytes(i)))
				}
				off := len(f.heap)
				out, ok := code(f.heap, f.in[0].Bytes(i), charset)
				if !ok {
					f.null(i)
					return
				}
				f.heap = out
				f.put(i, off)
			})
		}, nil
	}
}

func encodeTo(dst, b []byte, charset string) ([]byte, bool) {
	limit := rune(0x7F)
	switch charset {
	case "UTF-8", "UTF8":
		return append(dst, b...), true
	case "ISO-8859-1", "LATIN1":
		limit = 0xFF
	case "US-ASCII", "ASCII":
	case "UTF-16", "UTF-16BE", "UTF-16LE":
		little := charset == "UTF-16LE"
		if charset == "UTF-16" {
			dst = append(dst, 0xFE, 0xFF)
		}
		var units [2]uint16
		for len(b) > 0 {
			r, size := utf8.DecodeRune(b)
			b = b[size:]
			for _, u := range utf16.AppendRune(units[:0], r) {
				if little {
					u = bits.ReverseBytes16(u)
				}
				dst = append(dst, byte(u>>8), byte(u))
			}
		}
		return dst, true
	default:
		return dst, false
	}
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		b = b[size:]
		if r > limit {
			r = '?'
		}
		dst = append(dst, byte(r))
	}
	return dst, true
}

func decodeFrom(dst, b []byte, charset string) ([]byte, bool) {
	switch charset {
	case "UTF-8", "UTF8":
		return append(dst, bytes.ToValidUTF8(b, []byte("\uFFFD"))...), true
	case "ISO-8859-1", "LATIN1":
		for _, c := range b {
			dst = utf8.AppendRune(dst, rune(c))
		}
		return dst, true
	case "US-ASCII", "ASCII":
		for _, c := range b {
			if c >= utf8.RuneSelf {
				dst = append(dst, "\uFFFD"...)
			} else {
				dst = append(dst, c)
			}
		}
		return dst, true
	case "UTF-16", "UTF-16BE", "UTF-16LE":
		little := charset == "UTF-16LE"
		if charset == "UTF-16" && len(b) >= 2 && (b[0] == 0xFE && b[1] == 0xFF || b[0] == 0xFF && b[1] == 0xFE) {
			little, b = b[0] == 0xFF, b[2:]
		}
		unit := func(k int) rune {
			if little {
				return rune(b[k+1])<<8 | rune(b[k])
			}
			return rune(b[k])<<8 | rune(b[k+1])
		}
		for k := 0; k+1 < len(b); k += 2 {
			r := unit(k)
			if utf16.IsSurrogate(r) {
				if k+3 < len(b) {
					r = utf16.DecodeRune(r, unit(k+2))
					if r != utf8.RuneError {
						k += 2
					}
				} else {
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
		}
		return dst, true
	}
	return dst, false
}

// bindParseURL gives a part of a URL: PROTOCOL, AUTHORITY, USERINFO, HOST, PATH, QUERY, FILE, REF, or with a key the
// value that it has in the query. NULL where there is none.
func bindParseURL(c *Call, _ *Settings) (kernel, error) {
	if b, ok := constText(c.Args[1]); ok && !strings.Contains("|PROTOCOL|AUTHORITY|USERINFO|HOST|PATH|QUERY|FILE|REF|", "|"+string(b)+"|") {
		return nil, errs.New(errs.SQLTypeMismatch, "PARSE_URL does not know the part %s", b).
			WithHint("parts are HOST, PATH, QUERY, REF, PROTOCOL, FILE, AUTHORITY and USERINFO")
	}
	return func(f *frame) {
		f.share(0)
		f.each(func(i int) {
			b := f.in[0].Bytes(i)
			begin, end, ok := urlPart(b, string(f.in[1].Bytes(i)))
			if ok && len(f.in) > 2 {
				var from, to int
				if from, to, ok = queryValue(b[begin:end], f.in[2].Bytes(i)); ok && string(f.in[1].Bytes(i)) == "QUERY" {
					begin, end = begin+from, begin+to
				} else {
					ok = false
				}
			}
			if !ok {
				f.null(i)
				return
			}
			f.part(i, begin, end)
		})
	}, nil
}

func urlPart(b []byte, part string) (begin, end int, ok bool) {
	colon := bytes.Index(b, []byte("://"))
	if colon <= 0 {
		return 0, 0, false
	}
	if part == "PROTOCOL" {
		return 0, colon, true
	}
	begin = colon + 3
	path := begin
	for path < len(b) && b[path] != '/' && b[path] != '?' && b[path] != '#' {
		path++
	}
	ref, query := len(b), -1
	if k := bytes.IndexByte(b[path:], '#'); k >= 0 {
		ref = path + k
	}
	if k := bytes.IndexByte(b[path:ref], '?'); k >= 0 {
		query = path + k
	}
	pathEnd := ref
	if query >= 0 {
		pathEnd = query
	}
	at := bytes.LastIndexByte(b[begin:path], '@')
	switch part {
	case "AUTHORITY":
		return begin, path, true
	case "USERINFO":
		return begin, begin + max(at, 0), at >= 0
	case "HOST":
		host, end := begin+at+1, path
		if k := bytes.LastIndexByte(b[host:end], ':'); k >= 0 && bytes.IndexByte(b[host+k:end], ']') < 0 {
			end = host + k
		}
		return host, end, true
	case "PATH":
		return path, pathEnd, true
	case "FILE":
		return path, ref, true
	case "QUERY":
		return query + 1, ref, query >= 0
	case "REF":
		return min(ref+1, len(b)), len(b), ref < len(b)
	}
	return 0, 0, false
}

func queryValue(q, key []byte) (begin, end int, ok bool) {
	for at := 0; at <= len(q); {
		end := at + len(q[at:])
		if k := bytes.IndexByte(q[at:], '&'); k >= 0 {
			end = at + k
		}
		if e := at + len(key); e < end && q[e] == '=' && bytes.Equal(q[at:e], key) {
			return e + 1, end, true
		}
		at = end + 1
	}
	return 0, 0, false
}
