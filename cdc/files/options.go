package files

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format"
	"github.com/weirstream/weir/internal/format/known"
	"github.com/weirstream/weir/internal/with"
)

// Options configures a Source.
type Options struct {
	// Path is a file, a directory that is read with all below it, or a pattern of either with * ? and [ ].
	Path   string
	Format format.Format // of the columns in Columns that are no partition columns, in their order
	Schema row.Schema    // of the table
	// Columns are the places in Schema of the columns that a batch has; nil means all.
	Columns []int
	// Partitions are the columns whose values stand in the names of directories, as in day=2026-01-01, not in the files.
	Partitions []string
	// Monitor is how often the path is looked at for new files, without end; 0 reads what is there and ends.
	Monitor time.Duration
	Match   *regexp.Regexp // what a file's whole path must match; nil takes all
	// Split of Splits: the source reads the files whose name falls to it. The zero values mean all files.
	Split, Splits int
}

// ParseOptions reads the WITH clause of a table that is read.
func ParseOptions(schema row.Schema, columns []int, partitions []string, c *with.Clause) (Options, error) {
	o := Options{Path: localPath(c.Required("path"), c), Schema: schema, Columns: columns, Partitions: partitions}
	if columns == nil {
		for i := range schema {
			o.Columns = append(o.Columns, i)
		}
	}
	o.Monitor = c.Duration("source.monitor-interval", 0)
	if p := c.Text("source.path.regex-pattern", ""); p != "" {
		re, err := regexp.Compile("^(?:" + p + ")$")
		if err != nil {
			c.Fail("source.path.regex-pattern", errs.New(errs.UnknownOption, "option 'source.path.regex-pattern' is no regular expression: %w", err).
				WithHint("lookaround and back references are not part of them"))
		}
		o.Match = re
	}
	c.Has("scan.parallelism") // the planner's
	inFile, read := inFiles(schema, o.Columns, partitions)
	f, err := known.Parse(inFile, read, c)
	if err2 := c.End("connector 'filesystem'"); err2 != nil {
		return o, err2
	}
	o.Format = f
	return o, err
}

// inFiles is the schema of what the files hold, and the places in it of the columns that are read.
func inFiles(schema row.Schema, columns []int, partitions []string) (inFile row.Schema, read []int) {
	place := make([]int, len(schema))
	for i, f := range schema {
		place[i] = -1
		if !slices.Contains(partitions, f.Name) {
			place[i] = len(inFile)
			inFile = append(inFile, f)
		}
	}
	read = []int{}
	for _, c := range columns {
		if place[c] >= 0 {
			read = append(read, place[c])
		}
	}
	return inFile, read
}

// localPath is a path without the scheme of local files; another scheme is an error in c.
func localPath(path string, c *with.Clause) string {
	scheme, rest, ok := strings.Cut(path, ":/")
	if !ok || strings.Contains(scheme, "/") {
		return path
	}
	if scheme != "file" {
		c.Fail("path", errs.New(errs.NotBuiltYet, "option 'path' names a place of scheme %s", scheme).WithHint("files on this machine can be used; name them by a path"))
		return path
	}
	return "/" + strings.TrimLeft(rest, "/")
}
