package postgres

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weirstream/weir/engine/changelog"
)

// value is one column of a test row: a text, NULL, or not sent.
type value struct {
	kind byte
	text string
}

func image(values ...value) changelog.Image {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		b = append(b, v.kind)
		if v.kind == changelog.ValueText {
			b = binary.BigEndian.AppendUint32(b, uint32(len(v.text)))
			b = append(b, v.text...)
		}
	}
	return b
}

func values(img changelog.Image) []value {
	var out []value
	for it := img.Iter(); ; {
		kind, raw := it.Next()
		if kind == 0 {
			return out
		}
		v := value{kind: kind}
		if raw != nil {
			v.text = string(raw[4:])
		}
		out = append(out, v)
	}
}

// TestBufferIsWhatReplayGives compares the net effects with a table to which every change is applied one by one.
func TestBufferIsWhatReplayGives(t *testing.T) {
	for _, key := range [][]int{{0}, {1}, {2, 0}} {
		t.Run(fmt.Sprint(key), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkBuffer(t, key) })
		})
	}
}

func checkBuffer(t *rapid.T, key []int) {
	const width = 4
	isKey := func(c int) bool { return slices.Contains(key, c) }
	target := map[string][]value{} // as it was before the epoch
	keyOf := func(row []value) string {
		s := ""
		for _, k := range key {
			s += row[k].text + "|"
		}
		return s
	}
	draw := func(id int) []value {
		row := make([]value, width)
		for c := range row {
			row[c] = value{changelog.ValueText, fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "v"))}
			if isKey(c) {
				row[c].text = fmt.Sprint(id)
			} else if rapid.IntRange(0, 5).Draw(t, "null") == 0 {
				row[c] = value{kind: changelog.ValueNull}
			}
		}
		return row
	}
	for id := range 6 {
		if rapid.Bool().Draw(t, "there") {
			row := draw(id)
			target[keyOf(row)] = row
		}
	}
	want := maps.Clone(target)
	var b buffer
	for range rapid.IntRange(0, 60).Draw(t, "changes") {
		row := draw(rapid.IntRange(0, 5).Draw(t, "id"))
		k := keyOf(row)
		old, there := want[k]
		switch {
		case !there:
			b.insert(image(row...), key)
			want[k] = row
		case rapid.IntRange(0, 2).Draw(t, "op") == 0:
			b.remove(image(old...), key)
			delete(want, k)
		default:
			sent := slices.Clone(row)
			full := slices.Clone(row)
			for c := range sent {
				if !isKey(c) && rapid.IntRange(0, 3).Draw(t, "unsent") == 0 {
					sent[c] = value{kind: changelog.ValueUnsent}
					full[c] = old[c]
				}
			}
			b.update(image(sent...), key)
			want[k] = full
		}
	}
	got := maps.Clone(target)
	live := 0
	for _, p := range b.rows {
		if p.op != 0 {
			live++
		}
		switch p.op {
		case changelog.Insert:
			row := values(p.img)
			if _, there := got[keyOf(row)]; there {
				t.Fatalf("insert of %v, which is there", row)
			}
			got[keyOf(row)] = row
		case changelog.Delete:
			row := values(p.img)
			if _, there := got[keyOf(row)]; !there {
				t.Fatalf("delete of %v, which is not there", row)
			}
			delete(got, keyOf(row))
		case changelog.Update:
			row := values(p.img)
			old, there := got[keyOf(row)]
			if !there {
				t.Fatalf("update of %v, which is not there", row)
			}
			for c := range row {
				if row[c].kind == changelog.ValueUnsent {
					row[c] = old[c]
				}
			}
			got[keyOf(row)] = row
		}
	}
	if live != b.live {
		t.Fatalf("%d rows are live, the buffer counts %d", live, b.live)
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
	b.reset()
	if b.live != 0 || len(b.rows) != 0 || b.peek(image(draw(1)...), key) != nil {
		t.Fatal("reset left something behind")
	}
}

// TestTallyIsWhatReplayGives: rows that may share a key until the end of a transaction, each told by all of its values.
// The same rows are left as when every change is made one by one.
func TestTallyIsWhatReplayGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		row := func() changelog.Image {
			return image(value{changelog.ValueText, fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "key"))}, value{changelog.ValueText, fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "v"))})
		}
		before, now := map[string]int{}, map[string]int{}
		for range rapid.IntRange(0, 6).Draw(t, "rows") {
			img := row()
			before[string(img)]++
			now[string(img)]++
		}
		var b buffer
		for range 2 { // slots of an epoch before must not count
			b.reset()
			clear(now)
			maps.Copy(now, before)
			for range rapid.IntRange(0, 30).Draw(t, "changes") {
				img := row()
				by := int32(1)
				if now[string(img)] > 0 && rapid.Bool().Draw(t, "delete") {
					by = -1
				}
				now[string(img)] += int(by)
				b.tally(img, []int{0, 1}, by)
			}
		}
		got := maps.Clone(before)
		live := 0
		for i := range b.rows {
			p := &b.rows[i]
			got[string(p.img)] += int(p.net)
			if p.op != 0 {
				live++
			}
			if want := [...]changelog.Op{changelog.Delete, 0, changelog.Insert}[min(max(p.net, -1), 1)+1]; p.op != want {
				t.Errorf("%d more rows are %v", p.net, p.op)
			}
		}
		if live != b.live {
			t.Errorf("%d rows are live, it says %d", live, b.live)
		}
		for img, n := range now {
			if got[img] != n {
				t.Errorf("%d rows of %v, want %d", got[img], values(changelog.Image(img)), n)
			}
		}
	})
}

func TestBufferKeepsNoKeysForInsertsAlone(t *testing.T) {
	var b buffer
	for i := range 1000 {
		b.insert(image(value{changelog.ValueText, fmt.Sprint(i)}), []int{0})
	}
	if b.keyed || len(b.keys) != 0 {
		t.Error("inserts alone were indexed")
	}
}

func TestEscapedTextIsWhatCopyReads(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "a\tb": `a\tb`, "a\nb\r": `a\nb\r`, `\`: `\\`, `\N`: `\\N`, "\x01\b": "\x01\b", "ü€😀": "ü€😀",
	} {
		if got := string(appendEscaped(nil, []byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func BenchmarkBufferUpdates(b *testing.B) {
	const n = 10000
	imgs := make([]changelog.Image, n)
	for i := range imgs {
		imgs[i] = image(value{changelog.ValueText, fmt.Sprint(i % 5000)}, value{changelog.ValueText, "some payload"}, value{changelog.ValueText, "more"})
	}
	var buf buffer
	b.ReportAllocs()
	for b.Loop() {
		for _, img := range imgs {
			buf.update(img, []int{0})
		}
		buf.reset()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
}
