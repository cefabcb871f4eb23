package coordinator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/format/record"
	"github.com/weirstream/weir/raft"
)

// Kind is the first byte of an entry. A number once released keeps its meaning; docs/formats/catalog.md lists them.
type Kind uint8

// The kinds of entries.
const (
	KindPutConnection Kind = iota + 1
	KindCreatePipeline
	KindUpdatePipeline
	KindSetDesired
	KindNewGeneration
	KindSchemaStep
	KindCheckpoint
	KindFinishDelete
)

// Entry is a proposal to change the catalog. What is not in it cannot influence the outcome: ids and times are minted
// by the proposer.
type Entry interface{ kind() Kind }

// PutConnection creates or replaces a named connection.
type PutConnection struct {
	Connection api.Connection `json:"connection"`
}

// CreatePipeline adds a pipeline under a name that no other has.
type CreatePipeline struct {
	ID     string         `json:"id"`
	At     time.Time      `json:"at"`
	Mirror api.MirrorSpec `json:"mirror,omitzero"`
	// Query, if it is there, makes it a pipeline of queries, and Mirror is empty.
	Query *api.QuerySpec `json:"query,omitempty"`
}

// name is the pipeline's.
func (e CreatePipeline) name() string {
	if e.Query != nil {
		return e.Query.Name
	}
	return e.Mirror.Name
}

// UpdatePipeline replaces a definition if it still is the one the proposer has seen. A mirror stays a mirror.
type UpdatePipeline struct {
	ID      string         `json:"id"`
	Version uint64         `json:"version"` // expected
	Mirror  api.MirrorSpec `json:"mirror,omitzero"`
	Query   *api.QuerySpec `json:"query,omitempty"`
}

// SetDesired says what the user wants. Deleted is final.
type SetDesired struct {
	ID      string      `json:"id"`
	Desired api.Desired `json:"desired"`
	// Force lets a delete end although the source or the target cannot be cleaned up.
	Force bool `json:"force,omitempty"`
}

// NewGeneration mints the next generation of a pipeline, which fences whoever holds an older one. Answers a uint64.
type NewGeneration struct {
	ID string `json:"id"`
}

// SchemaStep is a change of a target's schema: its intent before it is made, or its outcome.
type SchemaStep struct {
	ID         string          `json:"id"`
	Generation uint64          `json:"generation"`
	N          uint64          `json:"n"` // last + 1
	Step       json.RawMessage `json:"step"`
}

// Checkpoint is the commit point of a pipeline whose truth is raft. Answers nothing; being accepted is the answer.
type Checkpoint struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	Checkpoint uint64 `json:"checkpoint"` // above the last
	Digest     string `json:"digest"`
	// Bytes is how long the checkpoint is in its worker's delta log.
	Bytes     int64      `json:"bytes,omitempty"`
	Positions []Position `json:"positions,omitempty"`
}

// Position is where a checkpoint stands in a source, as a number that rises within one incarnation of the source.
type Position struct {
	Source      string `json:"source"`
	Incarnation string `json:"incarnation"`
	Position    uint64 `json:"position"`
}

// FinishDelete forgets a deleted pipeline after everything outside has been cleaned up.
type FinishDelete struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
}

func (PutConnection) kind() Kind  { return KindPutConnection }
func (CreatePipeline) kind() Kind { return KindCreatePipeline }
func (UpdatePipeline) kind() Kind { return KindUpdatePipeline }
func (SetDesired) kind() Kind     { return KindSetDesired }
func (NewGeneration) kind() Kind  { return KindNewGeneration }
func (SchemaStep) kind() Kind     { return KindSchemaStep }
func (Checkpoint) kind() Kind     { return KindCheckpoint }
func (FinishDelete) kind() Kind   { return KindFinishDelete }

var entryFormat = record.Format{Magic: record.Magic{'W', 'C', 'E', 'N'}, Version: 1, Limit: raft.MaxEntry - record.HeaderSize}

// ErrUnknownEntry means that the log holds an entry this version of weir does not understand. Skipping it would make
// this node's catalog differ from the others', so the node stops.
var ErrUnknownEntry = errors.New("unknown catalog entry; a newer weir wrote it")

// errEntryTooLarge is a definition that no log entry can hold.
var errEntryTooLarge = fmt.Errorf("catalog entry is above the limit of %d bytes", entryFormat.Limit)

// EncodeEntry makes the bytes of a log entry.
func EncodeEntry(e Entry) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode catalog entry: %w", err)
	}
	if len(body)+1 > entryFormat.Limit {
		return nil, errEntryTooLarge
	}
	return entryFormat.Append(nil, append([]byte{byte(e.kind())}, body...)), nil
}

// DecodeEntry reads a log entry. It is strict: a field it does not know would be lost on this node only.
func DecodeEntry(b []byte) (Entry, error) {
	rec, err := entryFormat.DecodeOne(b)
	if errors.Is(err, record.ErrVersion) {
		return nil, fmt.Errorf("%w: %w", ErrUnknownEntry, err)
	}
	if err != nil {
		return nil, fmt.Errorf("catalog entry: %w", err)
	}
	if len(rec.Payload) == 0 {
		return nil, fmt.Errorf("catalog entry: %w: no kind", record.ErrTorn)
	}
	body := rec.Payload[1:]
	switch k := Kind(rec.Payload[0]); k {
	case KindPutConnection:
		return decodeBody[PutConnection](body)
	case KindCreatePipeline:
		return decodeBody[CreatePipeline](body)
	case KindUpdatePipeline:
		return decodeBody[UpdatePipeline](body)
	case KindSetDesired:
		return decodeBody[SetDesired](body)
	case KindNewGeneration:
		return decodeBody[NewGeneration](body)
	case KindSchemaStep:
		return decodeBody[SchemaStep](body)
	case KindCheckpoint:
		return decodeBody[Checkpoint](body)
	case KindFinishDelete:
		return decodeBody[FinishDelete](body)
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrUnknownEntry, k)
	}
}

func decodeBody[E Entry](body []byte) (Entry, error) {
	var e E
	if err := decodeStrict(body, &e); err != nil {
		return nil, fmt.Errorf("%w: kind %d: %w", ErrUnknownEntry, e.kind(), err)
	}
	return e, nil
}

func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("bytes follow the value")
	}
	return nil
}
