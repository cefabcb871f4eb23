package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

var format = Format{Magic: Magic{'T', 'E', 'S', 'T'}, Version: 3, Limit: 1 << 20}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payloads := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 8).Draw(t, "payloads")
		var stream []byte
		for _, p := range payloads {
			stream = format.Append(stream, p)
		}
		rest, r := stream, bytes.NewReader(stream)
		for i, want := range payloads {
			rec, after, err := format.Decode(rest)
			if err != nil || !bytes.Equal(rec.Payload, want) || rec.Version != format.Version {
				t.Fatalf("record %d: %v %v", i, rec, err)
			}
			rest = after
			read, err := format.Read(r)
			if err != nil || !bytes.Equal(read.Payload, want) {
				t.Fatalf("read record %d: %v %v", i, read, err)
			}
		}
		if len(rest) != 0 {
			t.Fatalf("%d bytes left", len(rest))
		}
		if _, err := format.Read(r); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	whole := format.Append(nil, []byte("forty-two rows in a bottle"))
	for bit := range len(whole) * 8 {
		bad := bytes.Clone(whole)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := format.DecodeOne(bad); err == nil {
			t.Errorf("Decode took a record with bit %d flipped", bit)
		}
		if _, err := format.Read(bytes.NewReader(bad)); err == nil {
			t.Errorf("Read took a record with bit %d flipped", bit)
		}
	}
}

func TestEveryCutIsTorn(t *testing.T) {
	whole := format.Append(nil, []byte("forty-two rows in a bottle"))
	for n := range len(whole) {
		if _, _, err := format.Decode(whole[:n]); !errors.Is(err, ErrTorn) {
			t.Errorf("Decode of %d bytes: %v", n, err)
		}
		want := ErrTorn
		if n == 0 {
			want = io.EOF
		}
		if _, err := format.Read(bytes.NewReader(whole[:n])); !errors.Is(err, want) {
			t.Errorf("Read of %d bytes: %v", n, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	whole := format.Append(nil, []byte("x"))
	edit := func(fn func(b []byte)) []byte {
		b := bytes.Clone(whole)
		fn(b)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"other magic", edit(func(b []byte) { b[0] = 'X' }), ErrMagic},
		{"newer version", edit(func(b []byte) { binary.LittleEndian.PutUint16(b[4:], 4) }), ErrVersion},
		{"version zero", edit(func(b []byte) { binary.LittleEndian.PutUint16(b[4:], 0) }), ErrVersion},
		{"reserved", edit(func(b []byte) { b[6] = 1 }), ErrReserved},
		{"length above the limit", edit(func(b []byte) { binary.LittleEndian.PutUint32(b[8:], math.MaxUint32) }), ErrTooLarge},
		{"payload", edit(func(b []byte) { b[16]++ }), ErrChecksum},
		{"trailing bytes", append(bytes.Clone(whole), 0), ErrMagic},
	} {
		if _, err := format.DecodeOne(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// A header that promises a megabyte must not cost one before the bytes are there.
func TestLyingLengthAllocatesLittle(t *testing.T) {
	lying := format.Append(nil, make([]byte, 1<<20))[:HeaderSize+10]
	var before, after runtime.MemStats
	const rounds = 10
	runtime.ReadMemStats(&before)
	for range rounds {
		if _, err := format.Read(bytes.NewReader(lying)); !errors.Is(err, ErrTorn) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got > 128<<10 {
		t.Fatalf("reading a torn record allocates %d bytes", got)
	}
}

func TestWriteFileKeepsTheOldContentWhenAnyStepFails(t *testing.T) {
	content := func(s string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, s)
			return err
		}
	}
	for fail := int32(0); ; fail++ {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("/d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(mem, "/d/f", content("old"), nil); err != nil {
			t.Fatal(err)
		}
		index := errorfs.OnIndex(fail)
		fs := errorfs.Wrap(mem, errorfs.ErrInjected.If(index))
		err := WriteFile(fs, "/d/f", content("new"), nil)
		got, readErr := ReadFile(mem.CrashClone(vfs.CrashCloneCfg{}), "/d/f", 100)
		if readErr != nil {
			t.Fatalf("failure at operation %d left no file: %v", fail, readErr)
		}
		if err == nil {
			if string(got) != "new" {
				t.Fatalf("reported written, but after a crash the file holds %q", got)
			}
			if fail < 5 {
				t.Fatalf("only %d operations could fail; the injection does not work", fail)
			}
			return
		}
		if string(got) != "old" && string(got) != "new" {
			t.Fatalf("failure at operation %d left %q", fail, got)
		}
	}
}

func TestMkdirAllSurvivesACrash(t *testing.T) {
	mem := vfs.NewCrashableMem()
	if err := MkdirAll(mem, "/a/b/c", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(mem, "/a/b/c", 0o700); err != nil {
		t.Fatal("a second time:", err)
	}
	if _, err := mem.CrashClone(vfs.CrashCloneCfg{}).Stat("/a/b/c"); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFileVerifies(t *testing.T) {
	mem := vfs.NewMem()
	bad := errors.New("garbled")
	err := WriteFile(mem, "f", func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err },
		func(string) error { return bad })
	if !errors.Is(err, bad) {
		t.Fatalf("got %v", err)
	}
	names, err := mem.List("")
	if err != nil || len(names) != 0 {
		t.Fatalf("left behind: %v %v", names, err)
	}
}

func TestReadFileLimit(t *testing.T) {
	mem := vfs.NewMem()
	if err := WriteFile(mem, "f", func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("x", 101))
		return err
	}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(mem, "f", 100); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if b, err := ReadFile(mem, "f", 101); err != nil || len(b) != 101 {
		t.Fatalf("got %d bytes, %v", len(b), err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(format.Append(nil, nil))
	f.Add(format.Append(format.Append(nil, []byte("a")), []byte("bb")))
	f.Add([]byte("TEST"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, rest, err := format.Decode(b)
		read, readErr := format.Read(bytes.NewReader(b))
		if (err == nil) != (readErr == nil) {
			t.Fatalf("Decode says %v, Read says %v", err, readErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(rec.Payload, read.Payload) {
			t.Fatal("Decode and Read differ")
		}
		again := Format{format.Magic, rec.Version, format.Limit}.Append(nil, rec.Payload)
		if !bytes.Equal(append(again, rest...), b) {
			t.Fatal("a decoded record does not encode to its bytes")
		}
	})
}
