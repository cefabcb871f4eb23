package files

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"

	"github.com/weirstream/weir/internal/errs"
)

// list gives the paths of the files that the source reads, in the order of their names.
func (s *Source) list() ([]string, error) {
	roots, err := expand(s.env.FS, s.opts.Path)
	if err != nil {
		return nil, s.cannot("look for files at", s.opts.Path, err)
	}
	if len(roots) == 0 && s.opts.Monitor == 0 {
		return nil, errs.New(errs.SourceFile, "nothing matches %s", s.opts.Path).WithHint("check 'path', or set 'source.monitor-interval' to wait for files")
	}
	var out []string
	for _, root := range roots {
		if out, err = walk(s.env.FS, root, out); err != nil {
			return nil, s.cannot("list", root, err)
		}
	}
	out = slices.DeleteFunc(out, func(path string) bool {
		return s.opts.Match != nil && !s.opts.Match.MatchString(path) ||
			s.opts.Splits > 1 && int(xxh3.HashString(path)%uint64(s.opts.Splits)) != s.opts.Split
	})
	slices.Sort(out)
	return slices.Compact(out), nil
}

// expand finds what a pattern names, part by part. A path that is no pattern must exist.
func expand(fs vfs.FS, path string) ([]string, error) {
	if !strings.ContainsAny(path, "*?[") {
		if _, err := fs.Stat(path); err != nil {
			return nil, err
		}
		return []string{path}, nil
	}
	at := []string{"."}
	if filepath.IsAbs(path) {
		at = []string{"/"}
	}
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		var next []string
		for _, dir := range at {
			if !strings.ContainsAny(part, "*?[") {
				if p := fs.PathJoin(dir, part); exists(fs, p) {
					next = append(next, p)
				}
				continue
			}
			if !isDir(fs, dir) {
				continue
			}
			names, err := fs.List(dir)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				ok, err := filepath.Match(part, name)
				if err != nil {
					return nil, err
				}
				if ok && !hidden(name) {
					next = append(next, fs.PathJoin(dir, name))
				}
			}
		}
		at = next
	}
	return at, nil
}

// hidden tells names that are not read: what is being written begins with a point, what others note with a low line.
func hidden(name string) bool { return name[0] == '.' || name[0] == '_' }

func exists(fs vfs.FS, path string) bool {
	_, err := fs.Stat(path)
	return err == nil
}

func isDir(fs vfs.FS, path string) bool {
	info, err := fs.Stat(path)
	return err == nil && info.IsDir()
}

// walk appends the files at and below path.
func walk(fs vfs.FS, path string, out []string) ([]string, error) {
	info, err := fs.Stat(path)
	if err != nil {
		return out, err
	}
	if !info.IsDir() {
		return append(out, path), nil
	}
	names, err := fs.List(path)
	if err != nil {
		return out, err
	}
	for _, name := range names {
		if name == "" || hidden(name) {
			continue
		}
		if out, err = walk(fs, fs.PathJoin(path, name), out); err != nil && exists(fs, fs.PathJoin(path, name)) {
			return out, err // one that has gone since is no error
		}
	}
	return out, nil
}
