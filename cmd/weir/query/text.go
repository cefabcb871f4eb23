package query

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/secrets"
	"github.com/weirstream/weir/sql/parser"
)

// Queries is the part of a script that is a pipeline of queries: everything but mirrors with their connections, which
// are pipelines of their own, and settings, which are stored as options. It is nil if there is nothing but tables.
func Queries(s *parser.Script) *parser.Script {
	q := &parser.Script{File: s.File}
	runs := false
	for _, st := range s.Statements {
		switch st := st.(type) {
		case *parser.Set, *parser.Reset, *parser.CreateConnection, *parser.CreateMirror:
			continue
		case *parser.Insert, *parser.StatementSet, *parser.CreateMaterializedView, *parser.CreateMaterializedTable, *parser.QueryStatement, *parser.Subscribe:
			runs = true
		case *parser.CreateTable:
			// A table without a connector is kept and served, so it is enough for a pipeline.
			runs = runs || len(st.Properties) == 0 && st.Like == nil
		}
		q.Statements = append(q.Statements, st)
	}
	if !runs {
		return nil
	}
	return q
}

// Planned is a script's text with blanks in the place of what Queries leaves out, so that every position stays what it is.
// Settings stay: the planner reads them, too.
func Planned(s *parser.Script, text string) string {
	b := []byte(strings.TrimPrefix(text, "\ufeff"))
	for i, st := range s.Statements {
		switch st.(type) {
		case *parser.CreateConnection, *parser.CreateMirror:
		default:
			continue
		}
		end := len(b)
		if i+1 < len(s.Statements) {
			end = s.Statements[i+1].Position().Offset
		}
		for j := st.Position().Offset; j < end; j++ {
			if b[j] != '\n' {
				b[j] = ' '
			}
		}
	}
	return string(b)
}

// Seal moves the secrets of a script's options into the store, leaves references in their place and returns the text
// that may be stored and shown: it has no comments, and two scripts that mean the same are one text. pipeline begins the
// secrets' names. The script is changed.
func Seal(pipeline string, s *parser.Script, store *secrets.Store) (string, error) {
	for _, st := range s.Statements {
		owner := pipeline
		if t, ok := st.(*parser.CreateTable); ok {
			owner += "_" + t.Name.Last().Text
		}
		var failed error
		parser.Options(st, func(key string, value *string) {
			if failed != nil {
				return
			}
			var sealed string
			if sealed, failed = seal(owner, key, *value, store); failed == nil {
				*value = sealed
			}
		})
		if failed != nil {
			return "", failed
		}
	}
	return parser.Print(s), nil
}

// hidden is how a password stands inside a longer value, as in Kafka's sasl.jaas.config.
var hidden = regexp.MustCompile(`(?i)(password|passwd|secret|token)\s*=`)

func seal(owner, key, value string, store *secrets.Store) (string, error) {
	if secrets.Sensitive(key) {
		return store.CaptureOption(owner, key, value)
	}
	plain := strings.TrimPrefix(value, "jdbc:")
	if strings.HasPrefix(plain, "postgres://") || strings.HasPrefix(plain, "postgresql://") {
		sealed, err := store.Capture(plain)
		return value[:len(value)-len(plain)] + sealed, err
	}
	if secrets.References(value) {
		return value, nil
	}
	u, err := url.Parse(plain)
	inURL := false
	if err == nil && u.User != nil {
		_, inURL = u.User.Password()
	}
	if !inURL && !hidden.MatchString(value) {
		return value, nil
	}
	// The value is a secret as a whole: a key of a name that CaptureOption takes for one keeps it.
	return store.CaptureOption(owner+"_"+key, "secret", value)
}

var reference = regexp.MustCompile(`\$\{secret:([A-Za-z0-9_-]+)\}`)

// Secrets lists the stored secrets that a text refers to.
func Secrets(text string) []string {
	var out []string
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(out, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// Differences names the parts in which two definitions differ so that the state of one is of no use to the other. Options
// are compared as they are in force.
func Differences(a, b api.QuerySpec) []string {
	var out []string
	if a.SQL != b.SQL {
		out = append(out, "the text")
	}
	if a.Dir != b.Dir {
		out = append(out, "the directory where relative paths begin, "+a.Dir+" and "+b.Dir)
	}
	for _, key := range fixed {
		if o, ok := options.Find(key); ok && o.InForce(a.Options) != o.InForce(b.Options) {
			out = append(out, "option "+key)
		}
	}
	return out
}

// fixed are the options that decide what state and results are. All others may be changed between two starts.
var fixed = []string{"state.key-groups", "table.local-time-zone"}

// OtherOptions tells whether two definitions have other options in force.
func OtherOptions(a, b api.QuerySpec) bool {
	return slices.ContainsFunc(options.All(), func(o options.Option) bool { return o.InForce(a.Options) != o.InForce(b.Options) })
}

// foreign are the beginnings of Flink's keys that say how a job is run there and mean nothing here.
var foreign = []string{"sql-client.", "table.exec.", "table.optimizer.", "table.plan.", "table.dml-sync", "table.sql-dialect", "table.display.", "execution.",
	"restart-strategy", "state.backend", "state.checkpoints", "state.savepoints", "taskmanager.", "jobmanager.", "pipeline.", "parallelism.", "rest.", "yarn.", "kubernetes.", "metrics."}

// Foreign tells that a key of SET is Flink's and has no meaning here, so that a job's file runs unchanged.
func Foreign(key string) bool {
	if _, ok := options.Find(key); ok {
		return false
	}
	return slices.ContainsFunc(foreign, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// expanded puts secrets into a table's options.
func expanded(options map[string]string, expand func(string) (string, error)) (map[string]string, error) {
	out := maps.Clone(options)
	for k, v := range out {
		if !strings.Contains(v, "${") {
			continue
		}
		full, err := expand(v)
		if err != nil {
			e := errs.From(err, errs.SecretMissing)
			return nil, errs.New(e.Code, "option '%s': %s", k, e.Message).WithHint("%s", e.Hint)
		}
		out[k] = full
	}
	return out, nil
}
