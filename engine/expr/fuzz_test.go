package expr

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/row"
)

// FuzzJSONPath: a path over any JSON leads to whole JSON values inside of it.
func FuzzJSONPath(f *testing.F) {
	f.Add("$.a[0]", `{"a": [1, {"b": "x\"]"}]}`)
	f.Add("strict $[*].\"b\"", `[{"b": -1.5e3}, {"b": null}]`)
	f.Add("$.*['c']", `{"\u0061": {"c": "\ud83d\ude00"}}`)
	f.Fuzz(func(t *testing.T, path, text string) {
		p, err := parseJSONPath(path)
		if err != nil || !json.Valid([]byte(text)) {
			return
		}
		spans, _ := p.find([]byte(text), nil)
		for _, s := range spans {
			if !json.Valid([]byte(text[s.begin:s.end])) {
				t.Fatalf("%s in %s: %q", path, text, text[s.begin:s.end])
			}
			if text[s.begin] == '"' {
				var want string
				if err := json.Unmarshal([]byte(text[s.begin:s.end]), &want); err != nil {
					t.Fatal(err)
				}
				// Halves of a pair of surrogates have no character; each side has its own way to say so.
				if got := appendJSONText(nil, []byte(text[s.begin+1:s.end-1])); string(got) != want && !bytes.Contains([]byte(want), []byte("\uFFFD")) {
					t.Fatalf("%s is %q, want %q", text[s.begin:s.end], got, want)
				}
			}
		}
	})
}

// FuzzDatePattern: what a pattern writes with all fields it reads back as the same moment.
func FuzzDatePattern(f *testing.F) {
	f.Add("yyyy-MM-dd HH:mm:ss.SSS", int64(1709209845678000))
	f.Add("'at' H 'o''clock' EEEE MMMM d, yyyy mm ss SSSSSS", int64(0))
	f.Add(strings.Repeat("n", 30), int64(1))
	f.Fuzz(func(t *testing.T, pattern string, x int64) {
		p, err := parsePattern(pattern)
		if err != nil || x < -62135596800e6 || x >= 253402300800e6 {
			return
		}
		c := newClockOf(timestampType(6), nil)
		text := appendMoment(nil, p, c, x)
		day, nanos, ok := p.parse(text)
		if !ok {
			return // two numbers without a space between, names of zones, ...
		}
		if again := appendMoment(nil, p, c, day*row.MicrosPerDay+nanos/1000); len(pattern) > 0 && pattern == "yyyy-MM-dd HH:mm:ss.SSS" && !bytes.Equal(text, again) {
			t.Fatalf("%q: %s comes back as %s", pattern, text, again)
		}
	})
}

// FuzzLike: a LIKE pattern decides as the regular expression that it stands for.
func FuzzLike(f *testing.F) {
	f.Add("a%b_c", "axxbyc")
	f.Add("%ä_%", "xäö")
	f.Add("%%", "")
	f.Add("_%_", "ab")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if bytes.ContainsRune([]byte(text), 0xFFFD) || !bytes.Equal(bytes.ToValidUTF8([]byte(pattern+text), nil), []byte(pattern+text)) {
			return
		}
		p, err := parseLike([]byte(pattern), 0, false)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.match([]byte(text)), likeRegexp(pattern).MatchString(text); got != want {
			t.Fatalf("%q LIKE %q is %v, want %v", text, pattern, got, want)
		}
	})
}
