// Package options is the one table of what can be set, and the rule of which setting wins. A key that is not in the
// table is an error with the nearest match, wherever it comes from: an option that is misspelled and ignored costs a
// night, an error costs a second.
//
// What wins, first to last: --set on the command line, the environment (WEIR_ and the key in capitals, dots and hyphens
// as underscores), SET in the pipeline's file, weir.yaml, the default.
package options

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
)

// Layer is one origin of settings.
type Layer struct {
	Origin string // --set, environment, pipelines/x.sql, weir.yaml
	Values map[string]string
	// Pos places a key in the file it comes from; nil where there is no file.
	Pos func(key string) *errs.Position
}

// Set is the outcome of resolving layers.
type Set struct {
	values map[string]string
	origin map[string]string
}

// Resolve checks every layer and lets earlier ones win.
func Resolve(layers ...Layer) (Set, error) {
	s := Set{values: map[string]string{}, origin: map[string]string{}}
	for _, l := range layers {
		seen := map[string]string{} // key -> as written
		for _, written := range slices.Sorted(maps.Keys(l.Values)) {
			o, ok := Find(written)
			if !ok {
				return Set{}, l.place(written, unknown(written).WithDetail("it comes from %s", l.Origin))
			}
			if other, twice := seen[o.Key]; twice {
				return Set{}, l.place(written, errs.New(errs.UnknownOption, "%s and %s are the same option and both are set", other, written).
					WithDetail("both come from %s", l.Origin))
			}
			seen[o.Key] = written
			value := l.Values[written]
			if err := o.Check(value); err != nil {
				return Set{}, l.place(written, errs.From(err, errs.UnknownOption).WithDetail("it comes from %s", l.originOf(o)))
			}
			if _, taken := s.values[o.Key]; !taken {
				s.values[o.Key], s.origin[o.Key] = o.normal(value), l.originOf(o)
			}
		}
	}
	return s, nil
}

func (l Layer) originOf(o Option) string {
	if l.Origin == environment {
		return o.EnvName() + " in the environment"
	}
	return l.Origin
}

func (l Layer) place(key string, e *errs.Error) *errs.Error {
	if l.Pos != nil {
		e.Pos = l.Pos(key)
	}
	return e
}

func unknown(key string) *errs.Error {
	e := errs.New(errs.UnknownOption, "there is no option %s", key)
	if hint := nearest.Hint(key, Keys()); hint != "" {
		return e.WithHint("%s", hint)
	}
	return e.WithHint("`weir config list` shows all of them")
}

// Lookup is Find whose failure is the error for the user.
func Lookup(key string) (Option, error) {
	if o, ok := Find(key); ok {
		return o, nil
	}
	return Option{}, unknown(key)
}

// Get returns the value in force and where it comes from. A key outside the table is a defect of the caller.
func (s Set) Get(key string) (value, origin string) {
	o, ok := Find(key)
	if !ok {
		panic(fmt.Sprintf("options: no key %q in the table", key))
	}
	if v, ok := s.values[o.Key]; ok {
		return v, s.origin[o.Key]
	}
	return o.InForce(nil), "default"
}

// InForce is the option's value where the given ones are stored: its default where none is. So a default that somebody
// spells out is no other definition.
func (o Option) InForce(stored map[string]string) string {
	if v, ok := stored[o.Key]; ok {
		return v
	}
	if o.Default == "" {
		return ""
	}
	return o.normal(o.Default)
}

// Text, Int, Bool, Duration and Size are Get with the type of the key's kind. An unset option without default is the
// zero value.
func (s Set) Text(key string) string { v, _ := s.Get(key); return v }

// Int is the value of an integer.
func (s Set) Int(key string) int {
	n, _ := strconv.Atoi(s.Text(key)) // Resolve has checked it
	return n
}

// Bool is the value of a boolean.
func (s Set) Bool(key string) bool { return s.Text(key) == "true" }

// Duration is the value of a duration.
func (s Set) Duration(key string) time.Duration {
	d, _ := ParseDuration(s.Text(key))
	return d
}

// Size is the value of a size in bytes.
func (s Set) Size(key string) int64 {
	n, _ := ParseSize(s.Text(key))
	return n
}

// Stored gives the keys of a scope that were set, in the form that is stored with a pipeline.
func (s Set) Stored(scope Scope) map[string]string {
	out := map[string]string{}
	for key, value := range s.values {
		if o, ok := Find(key); ok && o.Scope == scope {
			out[key] = value
		}
	}
	return out
}

// FromFlags reads the values of --set.
func FromFlags(settings []string) (Layer, error) {
	l := Layer{Origin: "--set", Values: map[string]string{}}
	for _, text := range settings {
		key, value, ok := strings.Cut(text, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			return l, errs.New(errs.BadFlag, "--set takes key=value, not %q", text).WithHint("for example --set checkpoint.interval=1s")
		}
		l.Values[key] = value // of several the last counts, as for every flag
	}
	return l, nil
}

const environment = "the environment"

// EnvName is the environment variable of an option.
func (o Option) EnvName() string {
	return "WEIR_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(o.Key))
}

// FromEnv asks for the variable of every option. An empty variable counts as not set, as for most programs.
func FromEnv(lookup func(string) (string, bool)) Layer {
	l := Layer{Origin: environment, Values: map[string]string{}}
	for _, o := range All() {
		if v, ok := lookup(o.EnvName()); ok && v != "" {
			l.Values[o.Key] = v
		}
	}
	return l
}

// maxFileBytes bounds weir.yaml.
const maxFileBytes = 1 << 20

// FromYAML reads weir.yaml: keys with dots, or nested the same way.
func FromYAML(name string, text []byte) (Layer, error) {
	l := Layer{Origin: name, Values: map[string]string{}}
	if len(text) > maxFileBytes {
		return l, errs.New(errs.UnknownOption, "%s has %d bytes; the limit is %d", name, len(text), maxFileBytes)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return l, errs.New(errs.UnknownOption, "%s is not YAML: %v", name, err).Because(err)
	}
	if len(doc.Content) == 0 {
		return l, nil
	}
	lines := strings.Split(string(text), "\n")
	places := map[string]*errs.Position{}
	l.Pos = func(key string) *errs.Position { return places[key] }
	var walk func(prefix string, n *yaml.Node) error
	walk = func(prefix string, n *yaml.Node) error {
		at := errs.Position{File: name, Line: n.Line, Column: n.Column}
		if n.Line >= 1 && n.Line <= len(lines) {
			at.Source = strings.TrimRight(lines[n.Line-1], "\r")
		}
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key := prefix + n.Content[i].Value
				k := n.Content[i]
				p := errs.Position{File: name, Line: k.Line, Column: k.Column}
				if k.Line >= 1 && k.Line <= len(lines) {
					p.Source = strings.TrimRight(lines[k.Line-1], "\r")
				}
				places[key] = &p
				child := n.Content[i+1]
				if child.Kind == yaml.MappingNode {
					key += "."
				}
				if err := walk(key, child); err != nil {
					return err
				}
			}
			return nil
		case yaml.ScalarNode:
			if prefix == "" {
				return errs.New(errs.UnknownOption, "%s holds no keys", name).At(at)
			}
			if _, twice := l.Values[prefix]; twice {
				return errs.New(errs.UnknownOption, "%s sets %s twice", name, prefix).At(at)
			}
			l.Values[prefix] = n.Value
			return nil
		default:
			return errs.New(errs.UnknownOption, "%s: %s is neither a value nor a group of keys", name, strings.TrimSuffix(prefix, ".")).At(at)
		}
	}
	return l, walk("", doc.Content[0])
}
