package files

import (
	"math"
	"slices"
	"strings"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/known"
	"github.com/weirstream/weir/internal/options"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a table of a Sink.
type Options struct {
	Path string // the table's directory, which belongs to one pipeline
	// Pipeline is the ID of that pipeline: a directory of another is refused. "" means that nobody knows.
	Pipeline string
	Schema   row.Schema // of the batches
	Format   format.Format
	// Partitions are the columns whose values name directories instead of standing in the files.
	Partitions []string
	// Changelog: a column op with +I or -D comes first in the files, and retractions are taken.
	Changelog bool
	// FileSize is where a file of a checkpoint ends and the next one begins; default 128 MB.
	FileSize int64
}

// ParseOptions reads the WITH clause of a table that is written.
func ParseOptions(schema row.Schema, partitions []string, c *with.Clause) (Options, error) {
	o := Options{Path: localPath(c.Required("path"), c), Schema: schema, Partitions: partitions, Changelog: c.Bool("sink.changelog", false)}
	if v := c.Text("sink.rolling-policy.file-size", ""); v != "" {
		n, err := options.ParseSize(v)
		if err != nil || n <= 0 {
			c.Fail("sink.rolling-policy.file-size", errs.New(errs.UnknownOption, "option 'sink.rolling-policy.file-size' does not take %q", v).WithHint("it wants a size such as 128MB"))
		}
		o.FileSize = n
	}
	// Each checkpoint ends its files, so these limits are kept whatever they are.
	c.Duration("sink.rolling-policy.rollover-interval", 0)
	c.Duration("sink.rolling-policy.check-interval", 0)
	c.Int("sink.parallelism", 1, 1, math.MaxInt32)
	for _, prefix := range []string{"sink.partition-commit.", "partition.time-extractor.", "auto-compaction", "compaction."} {
		for _, key := range c.WithPrefix(prefix) {
			c.Has(key)
			c.Fail(key, errs.New(errs.NotBuiltYet, "option '%s' has no effect here yet", key).
				WithHint("leave it out: a file that can be seen is complete, but nothing tells yet that a partition is"))
		}
	}
	f, err := known.Parse(o.inFiles(), nil, c)
	if err2 := c.End("connector 'filesystem'"); err2 != nil {
		return o, err2
	}
	o.Format = f
	return o, err
}

// inFiles is the schema of the files.
func (o Options) inFiles() row.Schema {
	var s row.Schema
	if o.Changelog {
		s = append(s, row.Field{Name: "op", Type: row.Type{Kind: row.String, NotNull: true}})
	}
	for _, f := range o.Schema {
		if !slices.Contains(o.Partitions, f.Name) {
			s = append(s, f)
		}
	}
	return s
}

// localPath is a path without the scheme of local files; another scheme is an error in c.
func localPath(path string, c *with.Clause) string {
	scheme, rest, ok := strings.Cut(path, ":/")
	if !ok || strings.Contains(scheme, "/") {
		return path
	}
	if scheme != "file" {
		c.Fail("path", errs.New(errs.NotBuiltYet, "option 'path' names a place of scheme %s", scheme).WithHint("directories of this machine can be used; name them by a path"))
		return path
	}
	return "/" + strings.TrimLeft(rest, "/")
}
