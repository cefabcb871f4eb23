package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

// The names in a state directory.
const (
	lockFile         = "LOCK"
	installationFile = "installation"
	endpointsFile    = "endpoints.json"
	raftDir          = "raft"
	spillDir         = "spill"
	secretsDir       = "secrets"
	engineDir        = "engine"
)

// State is a state directory that this process owns. Two processes on one directory would write each other's log, so
// the lock is held until Close.
type State struct {
	env          *env.Env
	dir          string
	installation string
	lock         io.Closer
	mu           struct {
		sync.Mutex
		endpoints Endpoints
	}
}

// Endpoints is what a client needs to find the process that owns a state directory.
type Endpoints struct {
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"` // what the process was started as: "server", "mirror", "run"
	HTTP    string `json:"http,omitempty"`    // host:port
	PG      string `json:"pg,omitempty"`
	Node    string `json:"node,omitempty"`
	// Instance is minted each time the directory is opened. A process that is killed leaves its file behind, and another
	// weir may listen on its port later: only the one that knows the instance is meant.
	Instance string `json:"instance,omitempty"`
}

// OpenState makes dir this process's state directory. What is in it stays; a directory that another process holds is
// refused with that process's pid and address.
func OpenState(e *env.Env, dir string) (*State, error) {
	s := &State{env: e, dir: dir}
	s.mu.endpoints.Instance = e.IDs.New()
	for _, sub := range []string{raftDir, spillDir, secretsDir} {
		if err := record.MkdirAll(e.FS, e.FS.PathJoin(dir, sub), 0o700); err != nil {
			return nil, errs.New(errs.DiskFailed, "prepare the state directory: %v", err).
				WithHint("choose another directory with --state")
		}
	}
	lock, err := e.FS.Lock(s.path(lockFile))
	if err != nil {
		return nil, s.lockError(err)
	}
	s.lock = lock
	if err := s.prepare(); err != nil {
		_ = lock.Close() // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

func (s *State) path(name string) string { return s.env.FS.PathJoin(s.dir, name) }

func (s *State) prepare() error {
	// Whatever addresses are in there belong to a process that is gone.
	if err := s.env.FS.Remove(s.path(endpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.DiskFailed, "remove %s: %v", s.path(endpointsFile), err)
	}
	b, err := record.ReadFile(s.env.FS, s.path(installationFile), 1<<10)
	if errors.Is(err, fs.ErrNotExist) {
		id := s.env.IDs.New()
		if err := record.WriteFile(s.env.FS, s.path(installationFile), writeString(id+"\n"), nil); err != nil {
			return errs.New(errs.DiskFailed, "prepare the state directory: %v", err)
		}
		s.installation = id
		return nil
	}
	if err != nil {
		return errs.New(errs.DiskFailed, "read the installation id: %v", err)
	}
	s.installation = strings.TrimSpace(string(b))
	if len(s.installation) != 32 || strings.Trim(s.installation, "0123456789abcdef") != "" {
		return errs.New(errs.StateCorrupt, "%s does not hold an installation id", s.path(installationFile)).
			WithDetail("it should hold 32 hexadecimal digits").
			WithHint("restore it from a backup: slots and ledgers in your databases are found by it")
	}
	return nil
}

func writeString(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

// lockError tells a lock that somebody holds from a disk that refuses.
func (s *State) lockError(err error) error {
	var notOpened *fs.PathError
	held := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) ||
		strings.Contains(err.Error(), "lock held by current process")
	if errors.As(err, &notOpened) || !held {
		return errs.New(errs.DiskFailed, "lock the state directory %s: %v", s.dir, err)
	}
	e := errs.New(errs.StateLocked, "the state directory %s is in use by another weir process", s.dir)
	if ep, err := ReadEndpoints(s.env.FS, s.dir); err == nil && ep != (Endpoints{}) {
		e = e.WithDetail("pid %d, address %s", ep.PID, ep.HTTP)
	}
	return e.WithHint("stop that process, use it with --state %s, or choose another directory with --state", s.dir)
}

// Dir is the directory itself.
func (s *State) Dir() string { return s.dir }

// RaftDir, SpillDir and SecretsDir are the directories of the parts that own them.
func (s *State) RaftDir() string { return s.path(raftDir) }

// SpillDir holds what does not fit memory. Nothing in it survives a restart.
func (s *State) SpillDir() string { return s.path(spillDir) }

// EngineDir holds the state of pipelines of queries. It is there when one has run.
func (s *State) EngineDir() string { return s.path(engineDir) }

// SecretsDir holds one file for each secret.
func (s *State) SecretsDir() string { return s.path(secretsDir) }

// Installation is the id of this installation, 32 hexadecimal digits, minted with the directory and never changed.
func (s *State) Installation() string { return s.installation }

// Instance is this process's hold on the directory; see Endpoints.
func (s *State) Instance() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.endpoints.Instance
}

// NodeID names this node in the cluster.
func (s *State) NodeID() string { return "node-" + s.installation[:8] }

// SetEndpoints changes the addresses in endpoints.json as a whole.
func (s *State) SetEndpoints(change func(*Endpoints)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.mu.endpoints
	change(&next)
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", endpointsFile, err)
	}
	if err := record.WriteFile(s.env.FS, s.path(endpointsFile), writeString(string(b)+"\n"), nil); err != nil {
		return errs.New(errs.DiskFailed, "%v", err)
	}
	s.mu.endpoints = next
	return nil
}

// Close gives the directory up.
func (s *State) Close() error {
	err := s.env.FS.Remove(s.path(endpointsFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.lock.Close())
}

// ReadEndpoints finds the process that owns a state directory. A missing file is fs.ErrNotExist.
func ReadEndpoints(fsys vfs.FS, dir string) (Endpoints, error) {
	var ep Endpoints
	b, err := record.ReadFile(fsys, fsys.PathJoin(dir, endpointsFile), 64<<10)
	if err != nil {
		return ep, err
	}
	if err := json.Unmarshal(b, &ep); err != nil {
		return ep, fmt.Errorf("read %s: %w", endpointsFile, err)
	}
	return ep, nil
}

// NoInstallation stands for the id where there is none yet.
const NoInstallation = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

// ReadInstallation is the id in a state directory that need not be open, for what only shows names. Without one it is
// what the id will look like.
func ReadInstallation(fsys vfs.FS, dir string) string {
	b, err := record.ReadFile(fsys, fsys.PathJoin(dir, installationFile), 1<<10)
	if id := strings.TrimSpace(string(b)); err == nil && len(id) == 32 {
		return id
	}
	return NoInstallation
}
