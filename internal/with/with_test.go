package with_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/with"
)

type read struct {
	path, mode string
	rows       int64
	rate       float64
	header     bool
	every      time.Duration
	delimiter  byte
}

func parse(values map[string]string) (read, error) {
	c := with.New(values, func(key string) *errs.Position { return &errs.Position{File: "x.sql", Line: len(key), Column: 1} })
	r := read{
		path: c.Required("path"), mode: c.Choice("mode", "SQL", "SQL", "ISO-8601"), rows: c.Int("rows", 7, 1, math.MaxInt64),
		rate: c.Float("null-rate", 0, 0, 1), header: c.Bool("csv.header", false), every: c.Duration("every", time.Second), delimiter: c.Char("csv.field-delimiter", ','),
	}
	return r, c.End("connector 'files'")
}

func TestClause(t *testing.T) {
	got, err := parse(map[string]string{"connector": "files", "path": "/a", "mode": "iso-8601", "rows": " 9", "null-rate": "0.5", "csv.header": "true", "every": "10 s", "csv.field-delimiter": `\t`})
	if err != nil || got != (read{"/a", "ISO-8601", 9, 0.5, true, 10 * time.Second, '\t'}) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = parse(map[string]string{"path": "/a"})
	if err != nil || got != (read{"/a", "SQL", 7, 0, false, time.Second, ','}) {
		t.Errorf("defaults: %+v, %v", got, err)
	}
	for _, c := range []struct{ key, value, want string }{
		{"path", " ", "option 'path' is missing"},
		{"rows", "0", "integer of at least 1"},
		{"rows", "x", "integer of at least 1"},
		{"null-rate", "NaN", "a number from 0 to 1"},
		{"csv.header", "maybe", "true or false"},
		{"every", "soon", "a duration"},
		{"csv.field-delimiter", "ab", "one ASCII character"},
		{"csv.field-delimiter", "é", "one ASCII character"},
		{"mode", "ISO-8602", "did you mean ISO-8601?"},
		{"csv.field-delimeter", ";", "did you mean csv.field-delimiter?"},
		{"zzz", "", "it takes connector, csv.field-delimiter"},
	} {
		values := map[string]string{"path": "/a", c.key: c.value}
		_, err := parse(values)
		e, ok := errs.As(err)
		if !ok || e.Code != errs.UnknownOption || !strings.Contains(e.Message+" "+e.Hint, c.want) {
			t.Errorf("%s = %q: %v (%+v), want %s", c.key, c.value, err, e, c.want)
			continue
		}
		if e.Pos == nil || e.Pos.Line != len(c.key) {
			t.Errorf("%s: at %+v", c.key, e.Pos)
		}
	}
}
