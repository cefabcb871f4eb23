package parser

// CreateTable is CREATE TABLE. A primary key written at a column is the table's, with that one column.
type CreateTable struct {
	Pos
	OrReplace     bool
	Temporary     bool
	IfNotExists   bool
	Name          Name
	Columns       []Column
	PrimaryKey    *PrimaryKey // nil if not given
	Watermark     *Watermark  // nil if not given
	Comment       *Literal
	Distribution  *Distribution
	PartitionedBy []Ident
	Properties    []Property
	Like          *TableLike
	Query         Query // CREATE TABLE .. AS query; nil if not given
}

// Column is a physical column (Type), a metadata column (Type and Metadata) or a computed one (Computed). In CREATE
// TABLE .. AS query a column may be a name alone.
type Column struct {
	Pos
	Name     Ident
	Type     *DataType // nil for a computed column
	Computed Expr      // nil for all others
	Metadata *Metadata // nil for all others
	Comment  *Literal
	Place    *Place // in ALTER TABLE
}

// Metadata is METADATA [FROM 'key'] [VIRTUAL].
type Metadata struct {
	Pos
	From    *Literal // nil: the column's name is the key
	Virtual bool
}

// Place is FIRST or AFTER column.
type Place struct {
	Pos
	First bool
	After Ident
}

// Enforcement says who keeps a constraint.
type Enforcement uint8

// The ways to keep a constraint.
const (
	EnforcementUnstated Enforcement = iota
	Enforced
	NotEnforced
)

// PrimaryKey is [CONSTRAINT name] PRIMARY KEY (columns) [[NOT] ENFORCED].
type PrimaryKey struct {
	Pos
	Name        Ident
	Columns     []Ident
	Enforcement Enforcement
}

// Watermark is WATERMARK FOR column AS expression.
type Watermark struct {
	Pos
	Column Name // of several parts if it is a field of a row
	X      Expr
}

// Distribution is DISTRIBUTED [BY [HASH|RANGE] (columns)] [INTO n BUCKETS].
type Distribution struct {
	Pos
	Kind    string // HASH, RANGE or ""
	Columns []Ident
	Buckets *int
}

// TableLike is LIKE table (options).
type TableLike struct {
	Pos
	Name    Name
	Options []LikeOption
}

// LikeOption is INCLUDING|EXCLUDING|OVERWRITING what.
type LikeOption struct {
	Pos
	Action string // INCLUDING, EXCLUDING or OVERWRITING
	What   string // ALL, CONSTRAINTS, DISTRIBUTION, GENERATED, METADATA, OPTIONS, PARTITIONS or WATERMARKS
}

// CreateView is CREATE VIEW.
type CreateView struct {
	Pos
	OrReplace   bool
	Temporary   bool
	IfNotExists bool
	Name        Name
	Columns     []ViewColumn
	Comment     *Literal
	Query       Query
}

// ViewColumn is an output column's name, with a comment.
type ViewColumn struct {
	Name    Ident
	Comment *Literal
}

// CreateMaterializedView is CREATE MATERIALIZED VIEW, whose result weir keeps and serves.
type CreateMaterializedView struct {
	Pos
	OrReplace   bool
	IfNotExists bool
	Name        Name
	Columns     []ViewColumn
	Comment     *Literal
	Properties  []Property
	Query       Query
}

// CreateMaterializedTable is Flink's CREATE MATERIALIZED TABLE.
type CreateMaterializedTable struct {
	Pos
	OrAlter       bool
	IfNotExists   bool
	Name          Name
	Columns       []Column
	PrimaryKey    *PrimaryKey
	Watermark     *Watermark
	Comment       *Literal
	Distribution  *Distribution
	PartitionedBy []Ident
	Properties    []Property
	Freshness     *IntervalLit // nil if not given
	RefreshMode   string       // FULL, CONTINUOUS or ""
	StartMode     *Call        // FROM_BEGINNING, FROM_NOW(..), FROM_TIMESTAMP(..), RESUME_OR_FROM_..; nil if not given
	Query         Query
}

// CreateCatalog is CREATE CATALOG.
type CreateCatalog struct {
	Pos
	IfNotExists bool
	Name        Ident
	Comment     *Literal
	Properties  []Property
}

// CreateDatabase is CREATE DATABASE.
type CreateDatabase struct {
	Pos
	IfNotExists bool
	Name        Name
	Comment     *Literal
	Properties  []Property
}

// CreateFunction is CREATE FUNCTION name AS 'identifier'.
type CreateFunction struct {
	Pos
	Temporary   bool
	System      bool
	IfNotExists bool
	Name        Name
	As          Literal
	Language    string // in capitals, or ""
	Using       []Resource
	Properties  []Property
}

// Resource is a file of a function: JAR 'path'.
type Resource struct {
	Kind string // in capitals
	Path Literal
}

// ObjectKind is what DROP, ALTER and DESCRIBE act on.
type ObjectKind string

// The kinds of objects, each the words that name it.
const (
	ObjectTable             ObjectKind = "TABLE"
	ObjectView              ObjectKind = "VIEW"
	ObjectMaterializedView  ObjectKind = "MATERIALIZED VIEW"
	ObjectMaterializedTable ObjectKind = "MATERIALIZED TABLE"
	ObjectCatalog           ObjectKind = "CATALOG"
	ObjectDatabase          ObjectKind = "DATABASE"
	ObjectFunction          ObjectKind = "FUNCTION"
	ObjectConnection        ObjectKind = "CONNECTION"
	ObjectMirror            ObjectKind = "MIRROR"
)

// Drop is DROP object.
type Drop struct {
	Pos
	Temporary bool
	System    bool // of functions
	Object    ObjectKind
	IfExists  bool
	Name      Name
	Cascade   bool
}

// Alter is ALTER object name action.
type Alter struct {
	Pos
	Object   ObjectKind
	IfExists bool
	Name     Name
	Action   AlterAction
}

// AlterAction is one of *AddColumns, *ModifyColumns, *DropColumns, *DropElement, *RenameColumn, *RenameTo, *SetOptions,
// *ResetOptions, *AlterQuery, *SetFreshness, *Suspend, *Resume and *Refresh.
type AlterAction interface {
	Node
	alterAction()
}

// AddColumns adds columns, a primary key or a watermark.
type AddColumns struct {
	Pos
	Columns      []Column
	PrimaryKey   *PrimaryKey
	Watermark    *Watermark
	Distribution *Distribution
}

// ModifyColumns puts others in the place of what is there.
type ModifyColumns struct {
	Pos
	Columns      []Column
	PrimaryKey   *PrimaryKey
	Watermark    *Watermark
	Distribution *Distribution
}

// DropColumns drops columns.
type DropColumns struct {
	Pos
	Columns []Ident
}

// DropElement drops the PRIMARY KEY, the WATERMARK, the DISTRIBUTION or a CONSTRAINT, which has a name.
type DropElement struct {
	Pos
	What string // those words
	Name Ident
}

// RenameColumn is RENAME a TO b.
type RenameColumn struct {
	Pos
	From Ident
	To   Ident
}

// RenameTo is RENAME TO name.
type RenameTo struct {
	Pos
	Name Name
}

// SetOptions is SET ('key' = 'value').
type SetOptions struct {
	Pos
	Properties []Property
}

// ResetOptions is RESET ('key').
type ResetOptions struct {
	Pos
	Keys []Literal
}

// AlterQuery is AS query.
type AlterQuery struct {
	Pos
	Query Query
}

// SetFreshness is SET FRESHNESS = INTERVAL .. and SET REFRESH_MODE = ..; one of the two is set.
type SetFreshness struct {
	Pos
	Freshness   *IntervalLit
	RefreshMode string
}

// Suspend stops keeping a materialized table fresh.
type Suspend struct{ Pos }

// Resume goes on after Suspend.
type Resume struct {
	Pos
	Properties []Property
}

// Refresh makes a materialized table anew.
type Refresh struct {
	Pos
	Partition []Assignment
}

func (*CreateTable) statement()             {}
func (*CreateView) statement()              {}
func (*CreateMaterializedView) statement()  {}
func (*CreateMaterializedTable) statement() {}
func (*CreateCatalog) statement()           {}
func (*CreateDatabase) statement()          {}
func (*CreateFunction) statement()          {}
func (*Drop) statement()                    {}
func (*Alter) statement()                   {}

func (*AddColumns) alterAction()    {}
func (*ModifyColumns) alterAction() {}
func (*DropColumns) alterAction()   {}
func (*DropElement) alterAction()   {}
func (*RenameColumn) alterAction()  {}
func (*RenameTo) alterAction()      {}
func (*SetOptions) alterAction()    {}
func (*ResetOptions) alterAction()  {}
func (*AlterQuery) alterAction()    {}
func (*SetFreshness) alterAction()  {}
func (*Suspend) alterAction()       {}
func (*Resume) alterAction()        {}
func (*Refresh) alterAction()       {}
