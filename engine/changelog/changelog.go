// Package changelog holds the words in which changes travel: relations, rows in their source's own encoding, and the
// changes of schema between them.
//
// A mirror's edge is multi-relation: one batch holds rows of many tables in the order of the source's transactions,
// and the values stay as the source sent them, so a row that nobody computes on is never decoded.
package changelog

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/weirstream/weir/internal/invariants"
)

// Op is what happened to a row.
type Op uint8

// The three operations. An update is one entry with two images, not two changes, because its source may have left
// columns out of the new one.
const (
	Insert Op = iota + 1
	Update
	Delete
)

func (o Op) String() string { return [...]string{"?", "insert", "update", "delete"}[o&3] }

// Identity is how a source names the row that an update or delete meant (Postgres: REPLICA IDENTITY).
type Identity uint8

// The identities. Full sends the whole old row; Nothing sends inserts only.
const (
	IdentityNothing Identity = iota
	IdentityKey
	IdentityFull
)

// Relation is one version of one table's shape, as its source describes it. It is immutable.
type Relation struct {
	ID       uint32 // the source's own number (Postgres: oid)
	Version  uint32 // rises with every change of shape within a pipeline
	Schema   string
	Name     string
	Identity Identity
	// KeyShared: with IdentityFull, rows may have the same values of any key until their transaction ends, as a deferrable
	// primary key allows. A row is told by all of its values then.
	KeyShared bool
	// Recopied: a copy of all rows is on its way, and what the target has meanwhile may be less than the source had.
	Recopied bool
	// Binary: values come in the type's binary form, except those of types that have none.
	Binary  bool
	Columns []Column
}

// Column is one column of a Relation.
type Column struct {
	Name    string
	TypeOID uint32
	TypeMod int32
	// The type's name at the source, without modifiers.
	TypeSchema, TypeName string
	Key                  bool // part of the identity; with IdentityFull every column is
	LeftOut              bool // the source sends it, and the target is not to have it
}

func (r *Relation) String() string { return r.Schema + "." + r.Name }

// Image is a row as pgoutput writes it: a 16-bit column count, then for each column a kind byte, 'n' NULL, 'u' not
// sent, 't' text or 'b' binary, the last two followed by a 32-bit length and the bytes. All sources of mirrors use it.
type Image []byte

// Entry is one change in Rows. Old and New are ranges of the arena; an empty range means the image is absent.
type Entry struct {
	Rel         uint32 // index into Rows.Relations
	Op          Op
	OldIsKey    bool // Old holds the identity's columns only; its other columns are absent, not NULL
	Old, OldEnd uint32
	New, NewEnd uint32
	_           [2]byte
}

// Tx is the end of a source transaction inside Rows.
type Tx struct {
	End    int    // entries before this index belong to it or to an earlier one
	Xid    uint32 // the source's number, 0 if it has none
	Commit time.Time
}

// Rows is a batch of changes in source order. It comes from a Pool and whoever receives it returns it with Release
// after the last use of any slice of it.
type Rows struct {
	Relations []*Relation
	Entries   []Entry
	Arena     []byte
	Txs       []Tx

	pool *Pool
}

// Old and New give an entry's images; they are valid until Release.
func (r *Rows) Old(e *Entry) Image { return r.Arena[e.Old:e.OldEnd:e.OldEnd] }

// New gives the row after the change.
func (r *Rows) New(e *Entry) Image { return r.Arena[e.New:e.NewEnd:e.NewEnd] }

// Relation gives the relation of an entry.
func (r *Rows) Relation(e *Entry) *Relation { return r.Relations[e.Rel] }

// UseRelation returns rel's index in the batch, adding it when it is not the last one used.
func (r *Rows) UseRelation(rel *Relation) uint32 {
	for i := len(r.Relations) - 1; i >= 0; i-- {
		if r.Relations[i] == rel {
			return uint32(i)
		}
	}
	r.Relations = append(r.Relations, rel)
	return uint32(len(r.Relations) - 1)
}

// Append copies a change into the batch.
func (r *Rows) Append(rel uint32, op Op, oldIsKey bool, old, new Image) {
	e := Entry{Rel: rel, Op: op, OldIsKey: oldIsKey}
	e.Old = uint32(len(r.Arena))
	r.Arena = append(r.Arena, old...)
	e.OldEnd = uint32(len(r.Arena))
	e.New = e.OldEnd
	r.Arena = append(r.Arena, new...)
	e.NewEnd = uint32(len(r.Arena))
	r.Entries = append(r.Entries, e)
}

// Bytes is what the batch holds, for bounds on queues.
func (r *Rows) Bytes() int { return len(r.Arena) + len(r.Entries)*24 }

// Release returns the batch to its pool.
func (r *Rows) Release() {
	if r == nil || r.pool == nil {
		return
	}
	invariants.Poison(r.Arena)
	p := r.pool
	r.pool = nil
	// An arena grown by a huge row is not kept: the pool's memory is part of the budget.
	if cap(r.Arena) > maxPooledArena {
		return
	}
	clear(r.Relations)
	r.Relations, r.Entries, r.Arena, r.Txs = r.Relations[:0], r.Entries[:0], r.Arena[:0], r.Txs[:0]
	p.put(r)
}

const maxPooledArena = 1 << 20

// Pool recycles batches. It is a free list, not a sync.Pool, so that the steady state allocates nothing even right
// after a collection.
type Pool struct {
	mu   sync.Mutex
	free []*Rows
}

const maxPooled = 24

// Get returns an empty batch.
func (p *Pool) Get() *Rows {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		r := p.free[n-1]
		p.free = p.free[:n-1]
		r.pool = p
		return r
	}
	return &Rows{pool: p}
}

func (p *Pool) put(r *Rows) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < maxPooled {
		p.free = append(p.free, r)
	}
}

// Truncate empties tables. Relations are those of one source statement and are emptied in one statement.
type Truncate struct {
	Relations       []*Relation
	Cascade         bool
	RestartIdentity bool
	// ByDelete: these are some of the statement's tables, and others may refer to them.
	ByDelete bool
}

// ChangeKind names one step of a SchemaChange.
type ChangeKind uint8

// The kinds of schema steps.
const (
	CreateTable ChangeKind = iota + 1
	DropTable
	RenameTable
	StepAside // the table lets go of its name at the target, and takes another one later
	AddColumn
	DropColumn
	RenameColumn
	AlterType
)

func (k ChangeKind) String() string {
	if int(k) >= len(changeKinds) {
		return fmt.Sprintf("ChangeKind(%d)", uint8(k))
	}
	return changeKinds[k]
}

var changeKinds = [...]string{"none", "create table", "drop table", "rename table", "step aside", "add column", "drop column", "rename column", "alter type"}

// SchemaStep is one change of a table's shape.
type SchemaStep struct {
	Kind    ChangeKind
	Column  string // AddColumn, DropColumn, AlterType: its name; RenameColumn: the old name
	NewName string // RenameColumn, RenameTable
	Type    string // AddColumn, AlterType: the type in the source's SQL
	NotNull bool
	Default string // AddColumn: SQL of the value that rows already there have, "" for NULL
	// NewDefault is the SQL of the column's default for rows to come, as the source has it; "" for none.
	NewDefault string
}

func (s SchemaStep) String() string {
	words := []string{s.Kind.String()}
	for _, word := range []string{s.Column, s.NewName, s.Type} {
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// SchemaChange says that rows of New follow where rows of Old came before. It travels at its exact place in the
// transaction that made it.
type SchemaChange struct {
	Old, New *Relation // Old is nil for CreateTable, New for DropTable
	Steps    []SchemaStep
	// Origin is the source's own description of the table (Postgres: *pg.Table), for a target of the same family.
	Origin any
	// Replaced: all rows that the target has of the table are about to be replaced, and must not be why it refuses.
	Replaced bool
}
