package raft

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	hraft "github.com/hashicorp/raft"

	"github.com/weirstream/weir/internal/env"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

// A snapshot file is a head, pieces of the state, and a tail that says how much there was. docs/formats/raft.md shows
// the bytes.
var (
	snapHead  = record.Format{Magic: record.Magic{'W', 'S', 'N', 'H'}, Version: 1, Limit: 1 << 20}
	snapPiece = record.Format{Magic: record.Magic{'W', 'S', 'N', 'P'}, Version: 1, Limit: 256 << 10}
)

const (
	snapSuffix = ".snap"
	snapKeep   = 3
)

// snapTail ends the file. It travels in the piece format, told from a piece by its first byte.
type snapTail struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const (
	pieceData = 'd'
	pieceTail = 't'
)

// snapshots keeps the last few raft snapshots as files. A snapshot is verified before it takes its name, because the
// log before it is cut right afterwards, and again when the node starts.
type snapshots struct {
	env   *env.Env
	fs    vfs.FS
	dir   string
	guard *guard

	newest atomic.Uint64 // index of the newest snapshot
}

// openSnapshots removes leftovers of a crash and verifies what is there. The newest must be readable: the log behind an
// older one is gone, so falling back would lose decisions.
func openSnapshots(e *env.Env, dir string, g *guard) (*snapshots, error) {
	s := &snapshots{env: e, fs: e.FS, dir: dir, guard: g}
	names, err := s.fs.List(dir)
	if err != nil {
		return nil, errs.New(errs.DiskFailed, "list %s: %v", dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, record.TempSuffix) {
			if err := s.fs.Remove(s.fs.PathJoin(dir, name)); err != nil {
				return nil, errs.New(errs.DiskFailed, "remove %s: %v", name, err)
			}
		}
	}
	ids, err := s.ids()
	if err != nil {
		return nil, errs.New(errs.DiskFailed, "list %s: %v", dir, err)
	}
	for i, id := range ids {
		meta, err := s.verify(s.path(id))
		if err == nil {
			s.newest.Store(max(s.newest.Load(), meta.Index))
			continue
		}
		if i == 0 {
			return nil, errs.New(errs.StateCorrupt, "the newest raft snapshot %s is unreadable: %v", s.path(id), err).
				WithHint("restore the state directory from a backup; the log before this snapshot is gone")
		}
		e.Log.Warn("an older raft snapshot is unreadable and not needed", "file", s.path(id), "error", err)
		if err := s.fs.Remove(s.path(id)); err != nil {
			return nil, errs.New(errs.DiskFailed, "remove %s: %v", s.path(id), err)
		}
	}
	return s, nil
}

func (s *snapshots) path(id string) string { return s.fs.PathJoin(s.dir, id+snapSuffix) }

// ids lists the snapshots, newest first: their names are term and index at fixed width.
func (s *snapshots) ids() ([]string, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		if id, ok := strings.CutSuffix(name, snapSuffix); ok {
			ids = append(ids, id)
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(ids)))
	return ids, nil
}

// List gives the snapshots, newest first.
func (s *snapshots) List() ([]*hraft.SnapshotMeta, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	list := make([]*hraft.SnapshotMeta, 0, len(ids))
	for _, id := range ids {
		meta, err := s.verify(s.path(id))
		if err != nil {
			return nil, fmt.Errorf("raft snapshot %s: %w", id, err)
		}
		list = append(list, meta)
	}
	return list, nil
}

// Open verifies the whole snapshot and then streams it.
func (s *snapshots) Open(id string) (*hraft.SnapshotMeta, io.ReadCloser, error) {
	meta, err := s.verify(s.path(id))
	if err != nil {
		return nil, nil, fmt.Errorf("raft snapshot %s: %w", id, err)
	}
	f, err := s.fs.Open(s.path(id), vfs.SequentialReadsOption)
	if err != nil {
		return nil, nil, err
	}
	r, err := newSnapReader(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return meta, &snapFile{snapReader: r, file: f}, nil
}

type snapFile struct {
	*snapReader
	file vfs.File
}

func (f *snapFile) Close() error { return f.file.Close() }

func (s *snapshots) verify(path string) (*hraft.SnapshotMeta, error) {
	f, err := s.fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return verifySnapshot(f)
}

// verifySnapshot reads a whole snapshot.
func verifySnapshot(in io.Reader) (*hraft.SnapshotMeta, error) {
	r, err := newSnapReader(in)
	if err != nil {
		return nil, err
	}
	size, err := io.Copy(io.Discard, r)
	if err != nil {
		return nil, err
	}
	meta := r.meta
	meta.Size = size
	return &meta, nil
}

// snapReader yields the state inside a snapshot and checks that all of it was there.
type snapReader struct {
	meta hraft.SnapshotMeta
	in   *bufio.Reader
	rest []byte
	size int64
	sum  hash.Hash
	done bool
}

func newSnapReader(in io.Reader) (*snapReader, error) {
	r := &snapReader{in: bufio.NewReader(in), sum: sha256.New()}
	head, err := snapHead.Read(r.in)
	if err == io.EOF {
		err = record.ErrTorn
	}
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	if err := json.Unmarshal(head.Payload, &r.meta); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	return r, nil
}

func (r *snapReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.done {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *snapReader) next() error {
	rec, err := snapPiece.Read(r.in)
	if err == io.EOF || (err == nil && len(rec.Payload) == 0) {
		return fmt.Errorf("%w: no tail", record.ErrTorn)
	}
	if err != nil {
		return err
	}
	body := rec.Payload[1:]
	switch rec.Payload[0] {
	case pieceData:
		r.rest = body
		r.size += int64(len(body))
		r.sum.Write(body)
		return nil
	case pieceTail:
		r.done = true
		return r.checkTail(body)
	default:
		return fmt.Errorf("%w: piece of kind %#x", record.ErrMagic, rec.Payload[0])
	}
}

func (r *snapReader) checkTail(body []byte) error {
	var tail snapTail
	if err := json.Unmarshal(body, &tail); err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	if tail.Size != r.size || tail.SHA256 != hex.EncodeToString(r.sum.Sum(nil)) {
		return fmt.Errorf("%w: the tail tells of %d bytes, there are %d", record.ErrChecksum, tail.Size, r.size)
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes follow the tail", record.ErrChecksum)
	}
	return nil
}

// Create begins a snapshot. The state is collected in memory: it is a catalog, not data, and so the file is written,
// synced, verified and named in one go by Close.
func (s *snapshots) Create(version hraft.SnapshotVersion, index, term uint64, conf hraft.Configuration, confIndex uint64, _ hraft.Transport) (hraft.SnapshotSink, error) {
	if version != hraft.SnapshotVersionMax {
		return nil, fmt.Errorf("raft snapshot of version %d is not written by this weir", version)
	}
	return &snapSink{store: s, meta: hraft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%016x-%016x", term, index), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}, nil
}

type snapSink struct {
	store *snapshots
	meta  hraft.SnapshotMeta
	state []byte
	done  bool
}

// maxSnapshot bounds a catalog. Reaching it is a defect: something that is data went into raft.
const maxSnapshot = 256 << 20

func (k *snapSink) ID() string { return k.meta.ID }

func (k *snapSink) Write(p []byte) (int, error) {
	if len(k.state)+len(p) > maxSnapshot {
		return 0, fmt.Errorf("raft snapshot is above the limit of %d bytes", maxSnapshot)
	}
	k.state = append(k.state, p...)
	return len(p), nil
}

func (k *snapSink) Cancel() error {
	k.done = true
	k.state = nil
	return nil
}

// Close returns when the snapshot is durable and was read back whole.
func (k *snapSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	s := k.store
	return s.guard.write("write a raft snapshot", func() error {
		err := record.WriteFile(s.fs, s.path(k.meta.ID), k.encode, func(temp string) error {
			_, err := s.verify(temp)
			return err
		})
		if err != nil {
			return err
		}
		s.newest.Store(k.meta.Index)
		return s.reap()
	})
}

func (k *snapSink) encode(w io.Writer) error {
	head, err := json.Marshal(k.meta)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	if _, err := out.Write(snapHead.Append(nil, head)); err != nil {
		return err
	}
	sum := sha256.Sum256(k.state)
	tail, err := json.Marshal(snapTail{Size: int64(len(k.state)), SHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		return err
	}
	buf := make([]byte, 0, snapPiece.Limit)
	put := func(kind byte, body []byte) error {
		buf = append(append(buf[:0], kind), body...)
		_, err := out.Write(snapPiece.Append(nil, buf))
		return err
	}
	for rest := k.state; len(rest) > 0; {
		n := min(len(rest), snapPiece.Limit-1)
		if err := put(pieceData, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := put(pieceTail, tail); err != nil {
		return err
	}
	return out.Flush()
}

// reap removes all but the newest few. Names that survive a crash here are removed the next time.
func (s *snapshots) reap() error {
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for i, id := range ids {
		if i < snapKeep {
			continue
		}
		if err := s.fs.Remove(s.path(id)); err != nil {
			return err
		}
	}
	return nil
}
