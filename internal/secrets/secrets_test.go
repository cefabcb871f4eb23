package secrets

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

func realStore(t *testing.T) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state", "secrets")
	vars := map[string]string{"PGPASS": "p@ss", "DSN": "postgres://u:x%40y@h/d", "HOST": "db.example:5433"}
	return Open(env.Real(nil), Options{Dir: dir, Getenv: func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}}), dir
}

func TestSetGetListDelete(t *testing.T) {
	for _, kind := range []string{"disk", "memory"} {
		t.Run(kind, func(t *testing.T) {
			s, _ := realStore(t)
			if kind == "memory" {
				s.opts.Dir = ""
			}
			if names, err := s.List(); err != nil || len(names) != 0 {
				t.Fatalf("empty store: %v, %v", names, err)
			}
			for _, name := range []string{"b", "a"} {
				if err := s.Set(name, NewValue("one")); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Set("a", NewValue("two")); err != nil {
				t.Fatal(err)
			}
			if v, err := s.Get("a"); err != nil || v.Reveal() != "two" {
				t.Errorf("Get(a) = %q, %v", v.Reveal(), err)
			}
			if names, _ := s.List(); !slices.Equal(names, []string{"a", "b"}) {
				t.Errorf("List = %v", names)
			}
			if err := s.Delete("a"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get("a"); !errs.Is(err, errs.SecretMissing) {
				t.Errorf("Get after Delete: %v", err)
			}
			if err := s.Delete("a"); !errs.Is(err, errs.SecretMissing) {
				t.Errorf("second Delete: %v", err)
			}
		})
	}
}

func TestFilesArePrivate(t *testing.T) {
	s, dir := realStore(t)
	if err := s.Set("shop", NewValue("pw")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "shop"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

// A crash at any moment of Set leaves the old value or the new one.
func TestSetSurvivesCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	e := env.Real(nil)
	e.FS = fs
	s := Open(e, Options{Dir: "/state/secrets"})
	if err := s.Set("shop", NewValue("old")); err != nil {
		t.Fatal(err)
	}
	e.FS = fs.CrashClone(vfs.CrashCloneCfg{})
	if v, err := s.Get("shop"); err != nil || v.Reveal() != "old" {
		t.Fatalf("after the crash: %q, %v", v.Reveal(), err)
	}
	// An unfinished temporary file is neither a secret nor in the way.
	f, err := e.FS.Create("/state/secrets/shop.tmp", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := s.List(); !slices.Equal(names, []string{"shop"}) {
		t.Errorf("List = %v", names)
	}
	if err := s.Set("shop", NewValue("new")); err != nil {
		t.Fatal(err)
	}
}

func TestNamesAreChecked(t *testing.T) {
	s, _ := realStore(t)
	for _, name := range []string{"", "..", "a/b", "a.tmp", "a b", "a}", "ü", strings.Repeat("x", 200)} {
		if err := s.Set(name, NewValue("x")); !errs.Is(err, errs.BadFlag) {
			t.Errorf("Set(%q): %v", name, err)
		}
	}
	if err := s.Set("big", NewValue(strings.Repeat("x", MaxValueBytes+1))); !errs.Is(err, errs.BadFlag) {
		t.Errorf("big value: %v", err)
	}
}

func TestMissingSuggests(t *testing.T) {
	s, _ := realStore(t)
	if err := s.Set("shop_password", NewValue("x")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get("shop_pasword")
	if e, ok := errs.As(err); !ok || e.Hint != "did you mean shop_password?" {
		t.Errorf("error %v", err)
	}
}

func TestValueNeverPrints(t *testing.T) {
	v := NewValue("hunter2")
	type holder struct {
		V Value
		P *Value
		M map[string]Value
	}
	h := holder{v, &v, map[string]Value{"k": v}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		if verb == "%T %v" {
			fmt.Fprintf(&out, verb, v, v)
			continue
		}
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", v, &v, h)
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v, "h", h)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v, "p", &v)
	fmt.Fprintln(&out, fmt.Errorf("wrap %v", v))
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2")} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("leaked %q in:\n%s", leak, out.String())
		}
	}
	if v.Reveal() != "hunter2" {
		t.Error("Reveal")
	}
}

func TestExpand(t *testing.T) {
	s, _ := realStore(t)
	if err := s.Set("pw", NewValue(`p@ss/w:rd'\ %?&#+é`)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Expand("a ${secret:pw} b $${x}"); err != nil || v.Reveal() != `a p@ss/w:rd'\ %?&#+é b ${x}` {
		t.Errorf("Expand = %q, %v", v.Reveal(), err)
	}
	for _, in := range []string{
		"postgres://ann:${secret:pw}@db:5433/shop?sslmode=disable",
		"postgresql://ann@db:5433/shop?password=${secret:pw}&sslmode=disable",
		"postgres://ann:${secret:pw}@${env:HOST}/shop?sslmode=disable",
		"host=db port=5433 user=ann dbname=shop password=${secret:pw}",
		"host=db port=5433 user=ann dbname=shop password='${secret:pw}'",
	} {
		v, err := s.ExpandURL(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if _, got := pg.SplitPassword(v.Reveal()); got != `p@ss/w:rd'\ %?&#+é` {
			t.Errorf("%s: the password became %q", in, got)
		}
		if c, err := pg.ParseURL(v.Reveal()); err != nil || c.Port() != 5433 || c.Database() != "shop" {
			t.Errorf("%s: %v", in, err)
		}
	}
	if v, err := s.ExpandURL("${env:DSN}"); err != nil || v.Reveal() != "postgres://u:x%40y@h/d" {
		t.Errorf("whole string: %q, %v", v.Reveal(), err)
	}
	for _, bad := range []string{"${secret:none}", "${env:NONE}", "${secret:pw", "${vault:pw}", "${hunter2}"} {
		_, err := s.Expand(bad)
		if !errs.Is(err, errs.SecretMissing) {
			t.Errorf("%s: %v", bad, err)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats it: %v", bad, err)
		}
	}
}

func TestCapture(t *testing.T) {
	s, _ := realStore(t)
	for _, c := range []struct{ in, want, name, password string }{
		{"postgres://ann:s%40cret@db/shop", "postgres://ann:${secret:db_shop_ann}@db/shop", "db_shop_ann", "s@cret"},
		{"postgres://ann:x@db:5433/shop?sslmode=disable", "postgres://ann:${secret:db-5433_shop_ann}@db:5433/shop?sslmode=disable", "db-5433_shop_ann", "x"},
		{"postgres://ann@db/shop?password=q", "postgres://ann:${secret:db_shop_ann}@db/shop", "db_shop_ann", "q"},
		{"host=db user=ann dbname=shop password='a b'", "host=db user=ann dbname=shop password='${secret:db_shop_ann}'", "db_shop_ann", "a b"},
		{"postgres://ann@db/shop", "postgres://ann@db/shop", "", ""},
		{"postgres://ann:${secret:mine}@db/shop", "postgres://ann:${secret:mine}@db/shop", "", ""},
		{"${env:DSN}", "${env:DSN}", "", ""},
	} {
		got, err := s.Capture(c.in)
		if err != nil || got != c.want {
			t.Errorf("Capture(%s) = %s, %v\nwant %s", c.in, got, err, c.want)
			continue
		}
		if again, err := s.Capture(got); err != nil || again != got {
			t.Errorf("Capture of its own result %s = %s, %v", got, again, err)
		}
		if c.name == "" {
			continue
		}
		if v, err := s.Get(c.name); err != nil || v.Reveal() != c.password {
			t.Errorf("secret %s = %q, %v; want %q", c.name, v.Reveal(), err, c.password)
		}
		full, err := s.ExpandURL(got)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, p := pg.SplitPassword(full.Reveal()); p != c.password {
			t.Errorf("%s expands to password %q, want %q", got, p, c.password)
		}
	}
	for _, bad := range []string{"postgres://ann:hun@ter2@db/shop", "mysql:hunter2", "postgres://ann:hunter2@db:notaport/x", ""} {
		_, err := s.Capture(bad)
		if !errs.Is(err, errs.BadURL) || strings.Contains(err.Error(), "ter2") {
			t.Errorf("Capture(%s): %v", bad, err)
		}
	}
}

// Replaces tells what Capture would change, and changes nothing.
func TestReplaces(t *testing.T) {
	s, _ := realStore(t)
	url := "postgres://ann:one@db/shop?sslpassword=two"
	for _, c := range []struct {
		in   string
		want []string
	}{
		{url, nil}, // nothing is stored yet
		{"postgres://ann:other@db/shop?sslpassword=two", []string{"db_shop_ann"}},
		{"postgres://ann:other@db/shop?sslpassword=other", []string{"db_shop_ann", "db_shop_ann_ssl"}},
		{"postgres://ann:other@db2/shop", nil},
		{"postgres://ann@db/shop", nil},
		{"postgres://ann:${secret:mine}@db/shop", nil},
		{"${env:DSN}", nil},
		{url, nil},
	} {
		got, err := s.Replaces(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("Replaces(%s) = %q, %v; want %q", c.in, got, err, c.want)
		}
		if _, err := s.Capture(url); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := s.Get("db_shop_ann"); err != nil || v.Reveal() != "one" {
		t.Errorf("stored: %q, %v", v.Reveal(), err)
	}
	if _, err := s.Replaces("postgres://ann:hun@ter2@db/shop"); !errs.Is(err, errs.BadURL) || strings.Contains(err.Error(), "ter2") {
		t.Errorf("of a URL that does not parse: %v", err)
	}
}

func TestCaptureOption(t *testing.T) {
	s, _ := realStore(t)
	for _, c := range []struct{ key, value, want string }{
		{"password", "x", "${secret:shop_password}"},
		{"properties.sasl.password", "y", "${secret:shop_properties-sasl-password}"},
		{"password", "${env:P}", "${env:P}"},
		{"hostname", "db", "db"},
		{"url", "postgres://a:b@h/d", "postgres://a:${secret:h_d_a}@h/d"},
	} {
		got, err := s.CaptureOption("shop", c.key, c.value)
		if err != nil || got != c.want {
			t.Errorf("CaptureOption(%s, %s) = %s, %v; want %s", c.key, c.value, got, err, c.want)
		}
	}
}

func TestFailedDiskIsNamed(t *testing.T) {
	e := env.Real(nil)
	e.FS = failing{vfs.NewMem()}
	err := Open(e, Options{Dir: "/s"}).Set("a", NewValue("hunter2"))
	if !errs.Is(err, errs.DiskFailed) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

type failing struct{ vfs.FS }

func (failing) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, io.ErrShortWrite }
