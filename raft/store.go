package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	hraft "github.com/hashicorp/raft"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/format/record"
)

// The first byte of a key in the store.
const (
	keyLog    = 'l' // then the index, eight bytes, big-endian
	keyStable = 's' // then the library's own key
)

var entryFormat = record.Format{Magic: record.Magic{'W', 'L', 'O', 'G'}, Version: 1, Limit: MaxEntry + 64<<10}

// store is the log and the stable values, in one Pebble of its own. The catalog's log is small and slow beside the
// data, so Pebble is kept to a few megabytes: what matters is that an entry costs one fsync and that its tests for
// crashes are ours too.
type store struct {
	db    *pebble.DB
	cache *pebble.Cache
	guard *guard

	mu struct {
		sync.Mutex
		first, last uint64 // 0: the log is empty
	}
}

const (
	storeMemTable = 256 << 10
	storeCache    = 1 << 20
)

func openStore(fs vfs.FS, dir string, g *guard) (*store, error) {
	s := &store{guard: g, cache: pebble.NewCache(storeCache)}
	log := pebbleLog{guard: g, log: g.env.Log}
	opts := &pebble.Options{
		FS: fs, Cache: s.cache, MemTableSize: storeMemTable, MemTableStopWritesThreshold: 4,
		MaxOpenFiles: 64, FormatMajorVersion: pebble.FormatNewest, Logger: log,
		EventListener: &pebble.EventListener{BackgroundError: func(err error) {
			// Pebble would try a failed flush again. A disk that loses one write is not asked twice.
			g.note(fmt.Errorf("background write of the log: %w", err))
		}},
	}
	opts.CompactionConcurrencyRange = func() (int, int) { return 1, 1 }
	var db *pebble.DB
	err := g.isolate("open the log", func() (err error) {
		db, err = pebble.Open(dir, opts)
		return err
	})
	if err != nil {
		s.cache.Unref()
		return nil, errs.New(errs.StateCorrupt, "open the raft log in %s: %v", dir, err).
			WithHint("the disk may be full or damaged; restore the state directory from a backup if it is damaged")
	}
	s.db = db
	if err := s.loadRange(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) close() error {
	err := s.db.Close()
	s.cache.Unref()
	return err
}

// abandon closes what can be closed after a failed commit. Pebble then panics on locks or files it still holds, which
// says nothing new: the process was to end.
func (s *store) abandon() {
	defer func() {
		if r := recover(); r != nil {
			s.guard.env.Log.Debug("closing the failed raft log", "panic", r)
		}
	}()
	if err := s.guard.isolate("close the failed log", s.db.Close); err != nil {
		s.guard.env.Log.Debug("closing the failed raft log", "error", err)
	}
	s.cache.Unref()
}

func logKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyLog}, index) }

// loadRange finds the first and last entry.
func (s *store) loadRange() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyLog}, UpperBound: []byte{keyLog + 1}})
	if err != nil {
		return fmt.Errorf("read the raft log: %w", err)
	}
	var first, last uint64
	if it.First() {
		first = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if it.Last() {
		last = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("read the raft log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.first, s.mu.last = first, last
	return nil
}

func (s *store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.first, nil
}

func (s *store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.last, nil
}

func (s *store) GetLog(index uint64, l *hraft.Log) error {
	v, closer, err := s.db.Get(logKey(index))
	if errors.Is(err, pebble.ErrNotFound) {
		return hraft.ErrLogNotFound
	}
	if err != nil {
		return fmt.Errorf("read raft entry %d: %w", index, err)
	}
	defer closer.Close()
	if err := decodeLog(v, l); err != nil {
		return fmt.Errorf("read raft entry %d: %w", index, err)
	}
	if l.Index != index {
		return fmt.Errorf("read raft entry %d: %w: it holds entry %d", index, record.ErrChecksum, l.Index)
	}
	return nil
}

func (s *store) StoreLog(l *hraft.Log) error { return s.StoreLogs([]*hraft.Log{l}) }

// StoreLogs makes the entries durable with one fsync.
func (s *store) StoreLogs(logs []*hraft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	return s.guard.write("append to the raft log", func() error {
		b := s.db.NewBatch()
		defer b.Close()
		for _, l := range logs {
			if err := b.Set(logKey(l.Index), encodeLog(l), nil); err != nil {
				return err
			}
		}
		if err := b.Commit(pebble.Sync); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range logs {
			if s.mu.first == 0 || l.Index < s.mu.first {
				s.mu.first = l.Index
			}
			s.mu.last = max(s.mu.last, l.Index)
		}
		return nil
	})
}

// DeleteRange removes the entries from first to last: the front after a snapshot, or the end when a new leader has
// overruled it.
func (s *store) DeleteRange(first, last uint64) error {
	return s.guard.write("cut the raft log", func() error {
		end := []byte{keyLog + 1}
		if last+1 != 0 {
			end = logKey(last + 1)
		}
		if err := s.db.DeleteRange(logKey(first), end, pebble.Sync); err != nil {
			return err
		}
		return s.loadRange()
	})
}

func stableKey(key []byte) []byte { return append([]byte{keyStable}, key...) }

// Set does not return when it fails: the library would panic.
func (s *store) Set(key, val []byte) error {
	err := s.guard.write("store a raft value", func() error { return s.db.Set(stableKey(key), val, pebble.Sync) })
	if err != nil {
		s.guard.leave(err)
	}
	return nil
}

func (s *store) Get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(stableKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read raft value %q: %w", key, err)
	}
	defer closer.Close()
	return append([]byte(nil), v...), nil
}

func (s *store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("read raft value %q: %d bytes, want 8", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// clearStable forgets term and vote. It is only for a cluster that was never founded.
func (s *store) clearStable() error {
	return s.guard.write("clear the raft values", func() error {
		return s.db.DeleteRange([]byte{keyStable}, []byte{keyStable + 1}, pebble.Sync)
	})
}

// logHead is what precedes the data of an entry: type, term, index, time of appending in nanoseconds since 1970, and
// the length of the extensions. docs/formats/raft.md shows it.
const logHead = 1 + 8 + 8 + 8 + 4

func encodeLog(l *hraft.Log) []byte {
	p := make([]byte, 0, logHead+len(l.Extensions)+len(l.Data))
	p = append(p, byte(l.Type))
	p = binary.LittleEndian.AppendUint64(p, l.Term)
	p = binary.LittleEndian.AppendUint64(p, l.Index)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	p = binary.LittleEndian.AppendUint64(p, uint64(at))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(l.Extensions)))
	p = append(p, l.Extensions...)
	p = append(p, l.Data...)
	return entryFormat.Append(nil, p)
}

// decodeLog copies everything out of b, which belongs to Pebble.
func decodeLog(b []byte, l *hraft.Log) error {
	rec, err := entryFormat.DecodeOne(b)
	if err != nil {
		return err
	}
	p := rec.Payload
	if len(p) < logHead {
		return fmt.Errorf("%w: %d bytes of an entry's head of %d", record.ErrTorn, len(p), logHead)
	}
	ext := binary.LittleEndian.Uint32(p[25:])
	body := p[logHead:]
	if uint64(ext) > uint64(len(body)) {
		return fmt.Errorf("%w: extensions of %d bytes in %d", record.ErrTorn, ext, len(body))
	}
	*l = hraft.Log{
		Type:  hraft.LogType(p[0]),
		Term:  binary.LittleEndian.Uint64(p[1:]),
		Index: binary.LittleEndian.Uint64(p[9:]),
	}
	if at := int64(binary.LittleEndian.Uint64(p[17:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	if ext > 0 {
		l.Extensions = append([]byte(nil), body[:ext]...)
	}
	if data := body[ext:]; len(data) > 0 {
		l.Data = append([]byte(nil), data...)
	}
	return nil
}

// pebbleLog passes Pebble's messages on. Its Fatalf must not return: Pebble calls it where it cannot go on, above all
// when a commit failed.
type pebbleLog struct {
	guard *guard
	log   *slog.Logger
}

func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	l.guard.note(fmt.Errorf(format, args...))
	runtime.Goexit()
}
