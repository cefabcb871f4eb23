package options

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/errs"
)

func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, key := range Keys() {
		if seen[key] {
			t.Errorf("%s stands twice", key)
		}
		seen[key] = true
	}
	names := map[string]string{}
	for _, o := range All() {
		if o.Help == "" || o.Scope == "" || (o.Kind == Enum) != (len(o.Values) > 0) {
			t.Errorf("%s is not complete", o.Key)
		}
		if o.Default == "" && !strings.Contains(o.Help, "Default: ") {
			t.Errorf("%s has no default and its help does not say what holds", o.Key)
		}
		if o.Default != "" {
			if err := o.Check(o.Default); err != nil {
				t.Errorf("default of %s: %v", o.Key, err)
			}
		}
		if other := names[o.EnvName()]; other != "" {
			t.Errorf("%s and %s share %s", o.Key, other, o.EnvName())
		}
		names[o.EnvName()] = o.Key
	}
}

func TestPageIsCurrent(t *testing.T) {
	got, err := os.ReadFile(filepath.Join("..", "..", "docs", "options.md"))
	if err != nil || string(got) != Markdown() {
		t.Errorf("docs/options.md is not current; run `make docs`")
	}
}

func TestPrecedence(t *testing.T) {
	flags, err := FromFlags([]string{"checkpoint.interval=1s", "checkpoint.interval=2 s"})
	if err != nil {
		t.Fatal(err)
	}
	env := FromEnv(func(name string) (string, bool) {
		v, ok := map[string]string{"WEIR_CHECKPOINT_INTERVAL": "3s", "WEIR_SINK_SYNCHRONOUS_COMMIT": "off", "WEIR_SLOT_NAME": ""}[name]
		return v, ok
	})
	file := Layer{Origin: "a.sql", Values: map[string]string{"sink.synchronous_commit": "remote_apply", "snapshot.chunk.bytes": "2 mb", "execution.checkpointing.interval": "4 s"}}
	yaml, err := FromYAML("weir.yaml", []byte("snapshot:\n  chunk.bytes: 3 MB\n  parallelism: 7\nsink.batch.bytes: 9mb\n"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Resolve(flags, env, file, yaml)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string][2]string{
		"checkpoint.interval":              {"2s", "--set"},
		"execution.checkpointing.interval": {"2s", "--set"},
		"sink.synchronous_commit":          {"off", "WEIR_SINK_SYNCHRONOUS_COMMIT in the environment"},
		"snapshot.chunk.bytes":             {"2 MB", "a.sql"},
		"sink.batch.bytes":                 {"9 MB", "weir.yaml"},
		"snapshot.parallelism":             {"7", "weir.yaml"},
		"snapshot.mode":                    {"initial", "default"},
		"slot.name":                        {"", "default"},
	} {
		if v, o := s.Get(key); v != want[0] || o != want[1] {
			t.Errorf("%s = %q from %q, want %q from %q", key, v, o, want[0], want[1])
		}
	}
	if s.Duration("checkpoint.interval") != 2*time.Second || s.Size("sink.batch.bytes") != 9<<20 || s.Int("snapshot.parallelism") != 7 {
		t.Error("typed values differ")
	}
	if got := len(s.Stored(Pipeline)); got != 5 {
		t.Errorf("%d options would be stored, want the 5 that were set", got)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"chekpoint.interval=1s", "did you mean checkpoint.interval?"},
		{"snapshot.mod=initial", "did you mean snapshot.mode?"},
		{"snapshot.mode=inital", "did you mean initial?"},
		{"kafka=1", "`weir config list` shows all of them"},
	} {
		l, err := FromFlags([]string{c.set})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Resolve(l)
		if e, ok := errs.As(err); !ok || e.Code != errs.UnknownOption || e.Hint != c.want || !strings.Contains(e.Detail, "--set") {
			t.Errorf("%s: %+v, want the hint %q", c.set, err, c.want)
		}
	}
	if _, err := FromFlags([]string{"nonsense"}); !errs.Is(err, errs.BadFlag) {
		t.Errorf("--set nonsense: %v", err)
	}
	twice := Layer{Origin: "a.sql", Values: map[string]string{"checkpoint.interval": "1s", "execution.checkpointing.interval": "2s"}}
	if _, err := Resolve(twice); !errs.Is(err, errs.UnknownOption) {
		t.Errorf("option and alias in one file: %v", err)
	}
	for value, bad := range map[string][]string{
		"snapshot.parallelism": {"0", "65", "x", "1.5", ""},
		"heartbeat.interval":   {"0", "-1s", "1 fortnight", "2h", ""},
		"sink.batch.bytes":     {"1", "4 XB", "-1", "9999999 TB"},
		"slot.name":            {"", "  "},
	} {
		o, _ := Find(value)
		for _, v := range bad {
			if err := o.Check(v); !errs.Is(err, errs.UnknownOption) {
				t.Errorf("%s=%q was taken", value, v)
			}
		}
	}
}

func TestYAMLErrorsHavePlaces(t *testing.T) {
	l, err := FromYAML("weir.yaml", []byte("snapshot:\n  parallelism: 3\n  paralelism: 4\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Resolve(l)
	e, ok := errs.As(err)
	if !ok || e.Pos == nil || e.Pos.Line != 3 || e.Pos.Column != 3 || e.Pos.Source != "  paralelism: 4" || e.Hint != "did you mean snapshot.parallelism?" {
		t.Errorf("error %+v", e)
	}
	for _, bad := range []string{"- a\n- b\n", "just text", "snapshot.parallelism: [1, 2]", "a: b: c", "snapshot: {parallelism: 1}\nsnapshot.parallelism: 2"} {
		if _, err := FromYAML("weir.yaml", []byte(bad)); !errs.Is(err, errs.UnknownOption) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if l, err := FromYAML("weir.yaml", nil); err != nil || len(l.Values) != 0 {
		t.Errorf("empty file: %v %v", l, err)
	}
}

func TestDurationsAndSizes(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"50ms": 50 * time.Millisecond, "50": 50 * time.Millisecond, "10 s": 10 * time.Second, "3 min": 3 * time.Minute, "1 m": time.Minute,
		"2 hours": 2 * time.Hour, "1 day": 24 * time.Hour, "1m30s": 90 * time.Second, "5 ms": 5 * time.Millisecond, "0.5 s": 500 * time.Millisecond,
		"7 us": 7 * time.Microsecond, "10 seconds": 10 * time.Second, "1 d": 24 * time.Hour,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for s, want := range map[string]int64{
		"1": 1, "1b": 1, "512 kB": 512 << 10, "64mb": 64 << 20, "64 MiB": 64 << 20, "2g": 2 << 30, "1.5 GB": 3 << 29, "1 tb": 1 << 40, "10 bytes": 10,
	} {
		got, err := ParseSize(s)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v; want %v", s, got, err, want)
		}
		if back, err := ParseSize(FormatSize(got)); err != nil || back != got {
			t.Errorf("FormatSize(%d) = %q, which reads as %d, %v", got, FormatSize(got), back, err)
		}
	}
}

// Whatever Check takes has a stored form that Check takes again with the same meaning.
func FuzzNormalForm(f *testing.F) {
	for _, s := range []string{"50ms", "10 s", "1 day", "64 MB", "1.5gb", "on", "try-evolve", "remote_apply", "17", "weir_x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, o := range All() {
			if o.Check(value) != nil {
				continue
			}
			n := o.normal(value)
			if err := o.Check(n); err != nil {
				t.Fatalf("%s takes %q but not its stored form %q: %v", o.Key, value, n, err)
			}
			if again := o.normal(n); again != n {
				t.Fatalf("%s: %q is stored as %q, and that as %q", o.Key, value, n, again)
			}
		}
	})
}
