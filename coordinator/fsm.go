package coordinator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/format/record"
)

// fsm puts the catalog behind raft. Readers take the lock; raft's goroutine is the only writer.
type fsm struct {
	changed chan struct{} // holds one token when definitions changed since somebody looked
	mu      struct {
		sync.RWMutex
		catalog *catalog
		applied uint64 // index of the last entry
	}
}

func newFSM() *fsm {
	f := &fsm{changed: make(chan struct{}, 1)}
	f.mu.catalog = newCatalog()
	return f
}

// answer is what an applied entry gives its proposer.
type answer struct {
	value   any
	refused error
}

// Apply implements raft.FSM. An entry that cannot be read stops the node.
func (f *fsm) Apply(index uint64, b []byte) (any, error) {
	e, err := DecodeEntry(b)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.applied = index
	value, refused := f.mu.catalog.apply(e)
	if refused != nil {
		return answer{refused: refused}, nil
	}
	switch e.(type) {
	case Checkpoint, SchemaStep, NewGeneration: // these come often and start or stop nothing
	default:
		f.notify()
	}
	return answer{value: value}, nil
}

func (f *fsm) notify() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// view runs fn under the lock. fn must not keep the catalog itself; the values in it may be kept.
func (f *fsm) view(fn func(c *catalog)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn(f.mu.catalog)
}

// Snapshot implements raft.FSM. The catalog is small, so its bytes are made here and written later.
func (f *fsm) Snapshot() (io.WriterTo, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	b, err := encodeCatalog(f.mu.catalog, f.mu.applied)
	if err != nil {
		return nil, err
	}
	return bytes.NewReader(b), nil
}

// Restore implements raft.FSM. The catalog is replaced only by one whose digest is right.
func (f *fsm) Restore(r io.Reader) error {
	c, applied, err := decodeCatalog(r)
	if err != nil {
		return fmt.Errorf("restore the catalog: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.catalog, f.mu.applied = c, applied
	f.notify()
	return nil
}

// A catalog snapshot is a head and then one record for each object. docs/formats/catalog.md shows it.
var (
	catalogHead   = record.Format{Magic: record.Magic{'W', 'C', 'A', 'T'}, Version: 1, Limit: 4 << 10}
	catalogObject = record.Format{Magic: record.Magic{'W', 'C', 'O', 'B'}, Version: 1, Limit: 64 << 20}
)

type snapshotHead struct {
	Applied     uint64 `json:"applied"`
	Connections int    `json:"connections"`
	Pipelines   int    `json:"pipelines"`
	Digest      string `json:"digest"` // SHA-256 over the payloads of all objects
}

// encodeCatalog gives equal catalogs equal bytes: objects are sorted, and JSON sorts the keys of maps.
func encodeCatalog(c *catalog, applied uint64) ([]byte, error) {
	sum := sha256.New()
	var objects []byte
	put := func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode the catalog: %w", err)
		}
		if len(b) > catalogObject.Limit {
			return fmt.Errorf("encode the catalog: %w: %d bytes", record.ErrTooLarge, len(b))
		}
		sum.Write(b)
		objects = catalogObject.Append(objects, b)
		return nil
	}
	names := make([]string, 0, len(c.connections))
	for name := range c.connections {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := put(c.connections[name]); err != nil {
			return nil, err
		}
	}
	for _, r := range c.list() {
		if err := put(r); err != nil {
			return nil, err
		}
	}
	head, err := json.Marshal(snapshotHead{
		Applied: applied, Connections: len(c.connections), Pipelines: len(c.pipelines),
		Digest: hex.EncodeToString(sum.Sum(nil)),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the catalog: %w", err)
	}
	return append(catalogHead.Append(nil, head), objects...), nil
}

func decodeCatalog(r io.Reader) (*catalog, uint64, error) {
	rec, err := catalogHead.Read(r)
	if err != nil {
		return nil, 0, fmt.Errorf("head: %w", noEOF(err))
	}
	var head snapshotHead
	if err := decodeStrict(rec.Payload, &head); err != nil {
		return nil, 0, fmt.Errorf("head: %w", err)
	}
	c, sum := newCatalog(), sha256.New()
	next := func(v any) error {
		rec, err := catalogObject.Read(r)
		if err != nil {
			return noEOF(err)
		}
		sum.Write(rec.Payload)
		return decodeStrict(rec.Payload, v)
	}
	for i := range head.Connections {
		var conn api.Connection
		if err := next(&conn); err != nil {
			return nil, 0, fmt.Errorf("connection %d: %w", i, err)
		}
		c.connections[conn.Name] = conn
	}
	for i := range head.Pipelines {
		var p pipelineRecord
		if err := next(&p); err != nil {
			return nil, 0, fmt.Errorf("pipeline %d: %w", i, err)
		}
		c.pipelines[p.Pipeline.ID] = p
		c.names[p.Pipeline.Name] = p.Pipeline.ID
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != head.Digest {
		return nil, 0, fmt.Errorf("%w: digest %s, want %s", record.ErrChecksum, got, head.Digest)
	}
	if len(c.connections) != head.Connections || len(c.pipelines) != head.Pipelines || len(c.names) != head.Pipelines {
		return nil, 0, fmt.Errorf("%w: an object is there twice", record.ErrChecksum)
	}
	if _, err := catalogObject.Read(r); err != io.EOF {
		return nil, 0, fmt.Errorf("%w: something follows the last object", record.ErrChecksum)
	}
	return c, head.Applied, nil
}

// noEOF: where a record must be, the end of the file is a torn record.
func noEOF(err error) error {
	if err == io.EOF {
		return record.ErrTorn
	}
	return err
}
