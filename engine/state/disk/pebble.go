package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/internal/errs"
)

// writeCategory is what the files count as in the file system's statistics.
const writeCategory vfs.DiskWriteCategory = "state-log"

// pebbleOptions are those of the state: written in the background, in sorted runs, without a log of its own.
func (d *Disk) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS: d.env.FS, Cache: d.cache, DisableWAL: true,
		MemTableSize: uint64(d.opts.MemTableBytes), MemTableStopWritesThreshold: 4,
		// Deltas enter as overlapping tables at the top, each over all keys. What merges them reads and writes the whole
		// level below, so that few large merges cost less than many; a read has to ask more tables meanwhile. Writes are
		// held up late: the log's bound is what holds a pipeline up that is too fast.
		L0CompactionThreshold: 8, L0StopWritesThreshold: 64, LBaseMaxBytes: 256 << 20,
		MaxOpenFiles: 1000, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLog{d},
		EventListener: &pebble.EventListener{BackgroundError: func(err error) {
			// Pebble would try again. A disk that loses one write is not asked twice.
			_ = d.fail(fmt.Errorf("background write of the state: %w", err))
		}},
	}
	o.CompactionConcurrencyRange = func() (int, int) { return 1, 2 }
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 8 << 10
		// What lives short is not worth compressing.
		if i < 2 {
			o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		} else {
			o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		}
	}
	return o
}

// openPebble opens Pebble and reads which pipelines there are, and their stamps.
func (d *Disk) openPebble(dir string) error {
	d.pebbleOpts = d.pebbleOptions()
	db, err := pebble.Open(dir, d.pebbleOpts)
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES):
		return errs.New(errs.StateLocked, "the state in %s is in use: %v", dir, err).WithHint("stop the weir that runs on it")
	case err != nil:
		return errs.New(errs.StateCorrupt, "open the state in %s: %v", dir, err).
			WithHint("the disk may be full or damaged; if it is damaged, move the directory away and let its pipelines be restored from elsewhere")
	}
	d.db = db
	if err := d.readSpaces(); err != nil {
		return errors.Join(errs.New(errs.StateCorrupt, "read the state in %s: %v", dir, err), d.db.Close())
	}
	return nil
}

func (d *Disk) readSpaces() error {
	d.mu.nextSpace = 1
	if v, err := d.get(space(0).meta(keyLayout)); err != nil {
		return err
	} else if len(v) > 0 && v[0] != layoutVersion {
		return fmt.Errorf("it is of layout %d, this weir reads %d", v[0], layoutVersion)
	}
	if v, err := d.get(space(0).meta(keySpaces)); err != nil {
		return err
	} else if len(v) == 4 {
		d.mu.nextSpace = space(binary.LittleEndian.Uint32(v))
	}
	if err := d.scan(space(0).meta(keyName), func(k, v []byte) error {
		if len(v) != 4 {
			return fmt.Errorf("the number of pipeline %q has %d bytes", k[5:], len(v))
		}
		d.add(string(k[5:]), space(binary.LittleEndian.Uint32(v)))
		return nil
	}); err != nil {
		return err
	}
	for s, p := range d.mu.spaces {
		if v, err := d.get(s.meta(keyStamp)); err != nil {
			return err
		} else if v != nil {
			if err := p.stamp.decode(v); err != nil {
				return fmt.Errorf("the stamp of pipeline %q: %w", p.name, err)
			}
			p.absorbed.Store(p.stamp.frame.Checkpoint)
		}
		if v, err := d.get(s.meta(keyPublished)); err != nil {
			return err
		} else if len(v) == 8 {
			p.published = binary.LittleEndian.Uint64(v)
		}
	}
	return nil
}

// get is a copy of a value, nil if there is none.
func (d *Disk) get(key []byte) ([]byte, error) {
	v, closer, err := d.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte{}, v...)
	return v, closer.Close()
}

// scan calls f with everything whose key begins with prefix.
func (d *Disk) scan(prefix []byte, f func(k, v []byte) error) error {
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: behind(prefix)})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		err = f(it.Key(), it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}

// behind is the first key that does not begin with prefix; nil if there is none.
func behind(prefix []byte) []byte {
	b := append([]byte(nil), prefix...)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
	return nil
}

// durableMarks reads what of every pipeline's stamp is on disk.
func (d *Disk) durableMarks() (map[space]marks, error) {
	d.mu.Lock()
	spaces := make([]space, 0, len(d.mu.spaces))
	for s := range d.mu.spaces {
		spaces = append(spaces, s)
	}
	d.mu.Unlock()
	it, err := d.db.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		return nil, err
	}
	found := map[space]marks{}
	for _, s := range spaces {
		var m marks
		if k := s.meta(keyStamp); it.SeekGE(k) && string(it.Key()) == string(k) {
			var st stamp
			if err := st.decode(it.Value()); err != nil {
				return nil, errors.Join(fmt.Errorf("the stamp of a pipeline: %w", err), it.Close())
			}
			m.absorbed = st.frame.Checkpoint
		}
		if k := s.meta(keyPublished); it.SeekGE(k) && string(it.Key()) == string(k) && len(it.Value()) == 8 {
			m.published = binary.LittleEndian.Uint64(it.Value())
		}
		found[s] = m
	}
	return found, errors.Join(it.Error(), it.Close())
}

// flush waits until what Pebble has now is on disk.
func (d *Disk) flush() error {
	done, err := d.db.AsyncFlush()
	if err != nil {
		return d.fail(fmt.Errorf("flush the state: %w", err))
	}
	select {
	case <-done:
		return d.Err()
	case <-d.failed:
		return d.Err()
	}
}

// pebbleLog passes Pebble's messages on. Its Fatalf must not return: Pebble calls it where it cannot go on.
type pebbleLog struct{ d *Disk }

func (l pebbleLog) Infof(format string, args ...any) {
	l.d.env.Log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.d.env.Log.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	l.d.stuck.Store(true)
	l.d.env.Crash(l.d.fail(fmt.Errorf(format, args...)))
	runtime.Goexit()
}
