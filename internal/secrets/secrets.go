// Package secrets keeps passwords out of everything that is logged, proposed, stored or shown. A password enters
// through Set or Capture, lives in a file that only its owner reads, travels as the reference ${secret:NAME}, and is
// put back by Expand at the last moment, just before a connection is opened.
//
// The files lie in STATE/secrets, one per secret, because a directory listing is then the list of names and replacing
// one never rewrites another.
package secrets

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
	"github.com/weirstream/weir/internal/nearest"
)

// Limits, so that a wrong file piped into `weir secrets set` is an error and not a secret.
const (
	MaxValueBytes = 64 << 10
	maxNameBytes  = 128
)

// Options configures a Store.
type Options struct {
	Dir    string                           // STATE/secrets; "" keeps the secrets in memory only, for dry runs
	Getenv func(name string) (string, bool) // for ${env:NAME}; nil: no variable is set
}

// Store holds the secrets of one state directory. Its methods may be called from any goroutine; two processes that set
// the same name at once leave one of the two values, never a mixture.
type Store struct {
	env  *env.Env
	opts Options

	mu struct {
		sync.Mutex
		memory map[string]string // used when Dir is ""
	}
}

// Open returns the store in opts.Dir. The directory is made by the first Set, so that looking changes nothing.
func Open(e *env.Env, opts Options) *Store {
	s := &Store{env: e, opts: opts}
	s.mu.memory = map[string]string{}
	return s
}

// Set stores a secret or replaces it. After it returns, a crash keeps the new value; before, the old one.
func (s *Store) Set(name string, v Value) error {
	if err := checkName(name); err != nil {
		return err
	}
	if v.Empty() {
		return errs.New(errs.BadFlag, "secret %s has no value", name).WithHint("to remove it use `weir secrets delete %s`", name)
	}
	if n := len(v.Reveal()); n > MaxValueBytes {
		return errs.New(errs.BadFlag, "secret %s has %d bytes; the limit is %d", name, n, MaxValueBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Dir == "" {
		s.mu.memory[name] = v.Reveal()
		return nil
	}
	if err := s.write(name, v); err != nil {
		return errs.New(errs.DiskFailed, "store secret %s: %v", name, err).Because(err)
	}
	return nil
}

func (s *Store) write(name string, v Value) error {
	if err := record.MkdirAll(s.env.FS, s.opts.Dir, 0o700); err != nil {
		return err
	}
	return record.WriteFile(s.env.FS, s.path(name), func(w io.Writer) error {
		// The file system interface has no mode, so the file is narrowed while it is still empty.
		if f, ok := w.(vfs.File); ok && f.Fd() != vfs.InvalidFd {
			if err := syscall.Fchmod(int(f.Fd()), 0o600); err != nil {
				return fmt.Errorf("make it private: %w", err)
			}
		}
		_, err := io.WriteString(w, v.Reveal())
		return err
	}, nil)
}

// Get reads a secret. A missing one is a W6003 with the nearest name.
func (s *Store) Get(name string) (Value, error) {
	if err := checkName(name); err != nil {
		return Value{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Dir == "" {
		if text, ok := s.mu.memory[name]; ok {
			return NewValue(text), nil
		}
		return Value{}, s.missing(name)
	}
	b, err := record.ReadFile(s.env.FS, s.path(name), MaxValueBytes)
	if errors.Is(err, os.ErrNotExist) {
		return Value{}, s.missing(name)
	}
	if err != nil {
		return Value{}, errs.New(errs.DiskFailed, "read secret %s: %v", name, err).Because(err)
	}
	return NewValue(string(b)), nil
}

func (s *Store) missing(name string) error {
	e := errs.New(errs.SecretMissing, "there is no secret %s", name)
	names, err := s.list()
	if near := nearest.Of(name, names); err == nil && near != "" {
		return e.WithHint("did you mean %s?", near)
	}
	return e.WithHint("store it with `weir secrets set %s`", name)
}

// List returns the names in order.
func (s *Store) List() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

func (s *Store) list() ([]string, error) {
	var names []string
	if s.opts.Dir == "" {
		for name := range s.mu.memory {
			names = append(names, name)
		}
		slices.Sort(names)
		return names, nil
	}
	files, err := s.env.FS.List(s.opts.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errs.New(errs.DiskFailed, "list the secrets: %v", err).Because(err)
	}
	for _, f := range files {
		// Only names that Set could have made: temporary files and strangers' files are not secrets.
		if checkName(f) == nil {
			names = append(names, f)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Delete removes a secret. A missing one is a W6003.
func (s *Store) Delete(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Dir == "" {
		delete(s.mu.memory, name)
		return nil
	}
	err := s.env.FS.Remove(s.path(name))
	if err == nil {
		err = record.SyncDir(s.env.FS, s.opts.Dir)
	}
	if err != nil {
		return errs.New(errs.DiskFailed, "delete secret %s: %v", name, err).Because(err)
	}
	return nil
}

func (s *Store) path(name string) string { return s.env.FS.PathJoin(s.opts.Dir, name) }

// checkName keeps names usable as file names everywhere and inside ${secret:NAME}.
func checkName(name string) error {
	bad := func(why string) error {
		return errs.New(errs.BadFlag, "%q cannot be the name of a secret: %s", name, why).
			WithHint("use letters, digits, _ and -, for example shop_password")
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > maxNameBytes:
		return bad(fmt.Sprintf("it is longer than %d bytes", maxNameBytes))
	}
	for _, r := range name {
		if !isNameRune(r) {
			return bad(fmt.Sprintf("it holds %q", r))
		}
	}
	return nil
}

// A dot is not among them: ".tmp" marks unfinished files, and ".." would leave the directory.
func isNameRune(r rune) bool {
	return r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// nameOf makes a name out of parts, leaving out what a name cannot hold.
func nameOf(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		if p == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('_')
		}
		for _, r := range p {
			if !isNameRune(r) {
				r = '-'
			}
			b.WriteRune(r)
		}
	}
	s := b.String()
	return s[:min(len(s), maxNameBytes-8)] // room for a suffix
}
