package parser

// QueryStatement is a query that stands alone.
type QueryStatement struct {
	Pos
	Query Query
}

// Set is SET 'key' = 'value'.
type Set struct {
	Pos
	Key   Literal
	Value Literal
}

// Reset is RESET ['key']; without a key all of them.
type Reset struct {
	Pos
	Key *Literal
}

// Insert is INSERT INTO|OVERWRITE table query [ON CONFLICT ..] [RETURNING ..].
type Insert struct {
	Pos
	Overwrite  bool
	Table      Name
	Hints      []Hint
	Partition  []Assignment // a column without a value has a nil Value
	Columns    []Ident      // nil if not given
	Query      Query
	OnConflict OnConflict
	// Of ON CONFLICT: the columns of the key, which may be left out, and of DO UPDATE what is set, and for which rows.
	ConflictKey   []Ident
	ConflictSet   []Assignment
	ConflictWhere Expr
	Returning     []SelectItem // nil if not given
}

// OnConflict is what happens to rows whose key the target has from another row.
type OnConflict uint8

// The ways to meet a conflict.
const (
	ConflictUnstated    OnConflict = iota
	ConflictNothing                // ON CONFLICT DO NOTHING
	ConflictError                  // ON CONFLICT DO ERROR
	ConflictDeduplicate            // ON CONFLICT DO DEDUPLICATE
	ConflictUpdate                 // ON CONFLICT (key) DO UPDATE SET ..
)

// Assignment is column = value.
type Assignment struct {
	Column Ident
	Value  Expr
}

// Update is UPDATE table SET assignments [WHERE ..].
type Update struct {
	Pos
	Table Name
	Alias Ident
	Set   []Assignment
	Where Expr // nil if not given

	Returning []SelectItem // nil if not given
}

// Delete is DELETE FROM table [WHERE ..].
type Delete struct {
	Pos
	Table Name
	Alias Ident
	Where Expr // nil if not given

	Returning []SelectItem // nil if not given
}

// Truncate is TRUNCATE TABLE table.
type Truncate struct {
	Pos
	Table Name
}

// StatementSet is EXECUTE STATEMENT SET BEGIN ..; END or BEGIN STATEMENT SET; ..; END: several inserts in one pipeline.
type StatementSet struct {
	Pos
	Inserts []*Insert
}

// ExplainDetail is what EXPLAIN shows beside the plan.
type ExplainDetail string

// The details.
const (
	ExplainEstimatedCost ExplainDetail = "ESTIMATED_COST"
	ExplainChangelogMode ExplainDetail = "CHANGELOG_MODE"
	ExplainPlanAdvice    ExplainDetail = "PLAN_ADVICE"
	ExplainJSONPlan      ExplainDetail = "JSON_EXECUTION_PLAN"
)

// Explain is EXPLAIN [details | PLAN FOR | ANALYZE] statement.
type Explain struct {
	Pos
	Details   []ExplainDetail
	Analyze   bool
	Statement Statement // *QueryStatement, *Insert, *StatementSet, or one that creates a view or table
}

// Use is USE name, USE CATALOG name or USE MODULES names.
type Use struct {
	Pos
	What  string // "", CATALOG or MODULES
	Names []Name // one, except for MODULES
}

// Show is SHOW what.
type Show struct {
	Pos
	What string // in capitals: TABLES, CURRENT CATALOG, CREATE TABLE, COLUMNS; or "" for the setting that Name is
	Name Name   // of a setting, SHOW CREATE TABLE, SHOW COLUMNS FROM, SHOW PARTITIONS
	In   Name   // FROM or IN a catalog or database
	Not  bool   // of the pattern
	Like *Literal
	// ILike: case does not count in the pattern.
	ILike bool
}

// Describe is DESCRIBE [CATALOG|DATABASE|FUNCTION] [EXTENDED] name.
type Describe struct {
	Pos
	Object   ObjectKind // ObjectTable for tables and views
	Extended bool
	Name     Name
}

// Begin is BEGIN or START TRANSACTION.
type Begin struct {
	Pos
	ReadOnly  bool
	ReadWrite bool
	Isolation string // SERIALIZABLE and so on, or ""
}

// Commit is COMMIT or, as Postgres has it, END.
type Commit struct{ Pos }

// Rollback is ROLLBACK.
type Rollback struct{ Pos }

// Subscribe is SUBSCRIBE [TO] view or SUBSCRIBE [TO] (query); one of the two is set.
type Subscribe struct {
	Pos
	View       Name
	Query      Query
	Properties []Property
}

func (*QueryStatement) statement() {}
func (*Set) statement()            {}
func (*Reset) statement()          {}
func (*Insert) statement()         {}
func (*Update) statement()         {}
func (*Delete) statement()         {}
func (*Truncate) statement()       {}
func (*StatementSet) statement()   {}
func (*Explain) statement()        {}
func (*Use) statement()            {}
func (*Show) statement()           {}
func (*Describe) statement()       {}
func (*Begin) statement()          {}
func (*Commit) statement()         {}
func (*Rollback) statement()       {}
func (*Subscribe) statement()      {}
