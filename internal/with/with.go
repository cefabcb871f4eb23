// Package with reads the WITH clause of a table. A connector asks for the options that it knows, each by name; what
// nobody asked for is an error with the nearest match, because a misspelled option that is ignored is worse than none.
package with

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/options"
)

// Clause is the options of one table. The methods that read one note the first failure, which End returns.
type Clause struct {
	values map[string]string
	pos    func(key string) *errs.Position
	asked  map[string]bool
	err    *errs.Error
}

// New returns the clause of values. pos places an option in the user's file; it may be nil.
func New(values map[string]string, pos func(key string) *errs.Position) *Clause {
	return &Clause{values: values, pos: pos, asked: map[string]bool{"connector": true}}
}

// Has tells whether the option is set, and makes it a known one.
func (c *Clause) Has(key string) bool {
	c.asked[key] = true
	_, ok := c.values[key]
	return ok
}

// Text is an option's value, or def.
func (c *Clause) Text(key, def string) string {
	if !c.Has(key) {
		return def
	}
	return c.values[key]
}

// Required is an option that must be there and not empty.
func (c *Clause) Required(key string) string {
	v := c.Text(key, "")
	if strings.TrimSpace(v) == "" {
		c.Fail(key, errs.New(errs.UnknownOption, "option '%s' is missing", key).WithHint("add '%s' = '...' to the table's WITH clause", key))
	}
	return v
}

// Int is an integer in [least, most].
func (c *Clause) Int(key string, def, least, most int64) int64 {
	if !c.Has(key) {
		return def
	}
	n, err := strconv.ParseInt(strings.TrimSpace(c.values[key]), 10, 64)
	if err != nil || n < least || n > most {
		switch {
		case least == math.MinInt64 && most == math.MaxInt64:
			c.bad(key, "an integer")
		case most == math.MaxInt64:
			c.bad(key, "an integer of at least "+strconv.FormatInt(least, 10))
		default:
			c.bad(key, "an integer from "+strconv.FormatInt(least, 10)+" to "+strconv.FormatInt(most, 10))
		}
		return def
	}
	return n
}

// Float is a number in [least, most].
func (c *Clause) Float(key string, def, least, most float64) float64 {
	if !c.Has(key) {
		return def
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(c.values[key]), 64)
	if err != nil || !(f >= least && f <= most) {
		c.bad(key, "a number from "+strconv.FormatFloat(least, 'g', -1, 64)+" to "+strconv.FormatFloat(most, 'g', -1, 64))
		return def
	}
	return f
}

// Bool is true or false.
func (c *Clause) Bool(key string, def bool) bool {
	if !c.Has(key) {
		return def
	}
	b, err := options.ParseBool(c.values[key])
	if err != nil {
		c.bad(key, "true or false")
		return def
	}
	return b
}

// Duration is Flink's or Go's form of a duration.
func (c *Clause) Duration(key string, def time.Duration) time.Duration {
	if !c.Has(key) {
		return def
	}
	d, err := options.ParseDuration(c.values[key])
	if err != nil {
		c.bad(key, "a duration such as 50ms, 10 s or 2min")
		return def
	}
	return d
}

// Choice is one of several words; case does not count.
func (c *Clause) Choice(key, def string, words ...string) string {
	if !c.Has(key) {
		return def
	}
	v := strings.TrimSpace(c.values[key])
	for _, w := range words {
		if strings.EqualFold(v, w) {
			return w
		}
	}
	c.bad(key, "one of "+strings.Join(words, ", "))
	if hint := nearest.Hint(v, words); hint != "" && c.err.Hint == "" {
		c.err.Hint = hint
	}
	return def
}

// Char is one character of ASCII. \t and its like are read as in Java.
func (c *Clause) Char(key string, def byte) byte {
	if !c.Has(key) {
		return def
	}
	v := c.values[key]
	if s, err := strconv.Unquote(`"` + v + `"`); err == nil && len(v) > 1 {
		v = s
	}
	if len(v) != 1 || v[0] >= utf8.RuneSelf {
		c.bad(key, "one ASCII character")
		return def
	}
	return v[0]
}

// WithPrefix lists the options that begin with prefix, in order. They do not become known by that.
func (c *Clause) WithPrefix(prefix string) []string {
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(c.values)) {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (c *Clause) bad(key, want string) {
	c.Fail(key, errs.New(errs.UnknownOption, "option '%s' does not take %q: it wants %s", key, c.values[key], want).WithHint(""))
}

// Fail notes an error about an option; the first one counts.
func (c *Clause) Fail(key string, e *errs.Error) {
	if c.err != nil {
		return
	}
	if c.pos != nil && e.Pos == nil {
		e.Pos = c.pos(key)
	}
	c.err = e
}

// End returns the first error, or one about an option that nobody asked for. what names the connector or format.
func (c *Clause) End(what string) error {
	for _, k := range slices.Sorted(maps.Keys(c.values)) {
		if c.asked[k] {
			continue
		}
		known := slices.Sorted(maps.Keys(c.asked))
		e := errs.New(errs.UnknownOption, "there is no option '%s' of %s", k, what)
		if hint := nearest.Hint(k, known); hint != "" {
			e = e.WithHint("%s", hint)
		} else {
			e = e.WithHint("it takes %s", strings.Join(known, ", "))
		}
		c.Fail(k, e)
	}
	if c.err != nil {
		return c.err
	}
	return nil
}
