package parser

// With is WITH name AS (query), .. body.
type With struct {
	Pos
	Recursive bool
	Tables    []CommonTable
	Body      Query
}

// CommonTable is one query that WITH names.
type CommonTable struct {
	Name    Ident
	Columns []Ident
	Query   Query
}

// Ordered is body [ORDER BY ..] [LIMIT ..] [OFFSET ..]; at least one of them is set. FETCH FIRST n ROWS is a limit. If
// the body is a *Select, its ORDER BY sees the items of the SELECT and the columns of its FROM.
type Ordered struct {
	Pos
	Body    Query
	OrderBy []OrderItem
	Limit   Expr // nil if not given
	Offset  Expr // nil if not given
}

// OrderItem is one expression of ORDER BY.
type OrderItem struct {
	X     Expr
	Desc  bool
	Nulls NullOrder
}

// NullOrder is where NULLs stand in an order.
type NullOrder uint8

// The places of NULLs.
const (
	NullsDefault NullOrder = iota
	NullsFirst
	NullsLast
)

// SetKind is a set operation.
type SetKind uint8

// The set operations.
const (
	Union SetKind = iota + 1
	Intersect
	Except
)

// SetOp is left UNION|INTERSECT|EXCEPT [ALL] right.
type SetOp struct {
	Pos
	Kind  SetKind
	OpPos Pos
	All   bool
	Left  Query
	Right Query
}

// Values is VALUES (a, b), (c, d). Rows may differ in length; the binder refuses that.
type Values struct {
	Pos
	Rows [][]Expr
}

// TableQuery is TABLE t, which means SELECT * FROM t.
type TableQuery struct {
	Pos
	Name Name
}

// Select is one SELECT without ORDER BY and LIMIT, which stand in *Ordered.
type Select struct {
	Pos
	Hints    []Hint
	Distinct bool
	Items    []SelectItem
	From     []TableRef // joined by commas; nil without FROM
	Where    Expr       // nil if not given
	GroupBy  *GroupBy   // nil if not given
	Having   Expr       // nil if not given
	Windows  []NamedWindow
	Qualify  Expr // nil if not given
}

// SelectItem is one output of a SELECT. X is a *Star for * and t.*.
type SelectItem struct {
	X     Expr
	Alias Ident
}

// GroupBy is GROUP BY [DISTINCT] items.
type GroupBy struct {
	Pos
	Distinct bool
	Items    []GroupItem
}

// GroupKind is the kind of a grouping item.
type GroupKind uint8

// The kinds of grouping items.
const (
	GroupSet     GroupKind = iota // Exprs: one expression, (a, b) or ()
	GroupRollup                   // Items, each of them a GroupSet
	GroupCube                     // Items, each of them a GroupSet
	GroupingSets                  // Items
)

// GroupItem is one item of GROUP BY.
type GroupItem struct {
	Pos
	Kind  GroupKind
	Exprs []Expr
	Items []GroupItem
}

// NamedWindow is name AS (window) of the WINDOW clause.
type NamedWindow struct {
	Name   Ident
	Window *Window
}

// Window is the specification of an OVER. OVER w has nothing but Base.
type Window struct {
	Pos
	Base        Ident // the named window it builds on
	PartitionBy []Expr
	OrderBy     []OrderItem
	Frame       *Frame // nil if not given
}

// FrameUnit is what a frame counts.
type FrameUnit uint8

// The units of frames.
const (
	FrameRows FrameUnit = iota + 1
	FrameRange
)

// Frame is ROWS|RANGE BETWEEN start AND end. Without BETWEEN the end is the current row.
type Frame struct {
	Pos
	Unit  FrameUnit
	Start Bound
	End   Bound
}

// BoundKind is one end of a frame.
type BoundKind uint8

// The ends of frames.
const (
	UnboundedPreceding BoundKind = iota + 1
	Preceding
	CurrentRow
	Following
	UnboundedFollowing
)

// Bound is one end of a frame; Distance belongs to Preceding and Following.
type Bound struct {
	Kind     BoundKind
	Distance Expr
}

// Hint is NAME(arguments) inside /*+ */.
type Hint struct {
	Name Ident
	Args []HintArg
}

// HintArg is key = value, or a key alone.
type HintArg struct {
	Key   HintText
	Value *HintText // nil for a key alone
}

// HintKind is how a word of a hint was written.
type HintKind uint8

// The kinds of a hint's words.
const (
	HintName HintKind = iota // t, or a.b, which is one text with its dot
	HintString
	HintNumber
)

// HintText is one word of a hint.
type HintText struct {
	Pos
	Kind HintKind
	Text string
}

// Alias is [AS] name [(columns)]. Without an alias the name is "".
type Alias struct {
	Name    Ident
	Columns []Ident
}

// Table is a table by name.
type Table struct {
	Pos
	Name   Name
	Hints  []Hint
	AsOf   Expr // FOR SYSTEM_TIME AS OF; nil if not given
	Sample *Sample
	Alias  Alias
}

// Sample is TABLESAMPLE method (percent) [REPEATABLE (seed)].
type Sample struct {
	Pos
	Method  string // BERNOULLI or SYSTEM
	Percent Expr
	Seed    Expr // nil if not given
}

// Derived is a query in parentheses.
type Derived struct {
	Pos
	Lateral bool
	Query   Query
	Sample  *Sample
	Alias   Alias
}

// TableFunction is TABLE(f(..)) or f(..).
type TableFunction struct {
	Pos
	Lateral bool
	Call    *Call
	Alias   Alias
}

// Unnest is UNNEST(a, ..) [WITH ORDINALITY].
type Unnest struct {
	Pos
	Lateral    bool
	Args       []Expr
	Ordinality bool
	Alias      Alias
}

// JoinKind is the kind of a join.
type JoinKind uint8

// The kinds of joins.
const (
	InnerJoin JoinKind = iota + 1
	LeftJoin
	RightJoin
	FullJoin
	CrossJoin
	SemiJoin // LEFT SEMI JOIN
	AntiJoin // LEFT ANTI JOIN
)

// Join is left JOIN right. Of On, Using and Natural at most one is set; none of them for CrossJoin. OpPos is where the
// join's first keyword stands.
type Join struct {
	Pos
	Kind    JoinKind
	OpPos   Pos
	Natural bool
	Left    TableRef
	Right   TableRef
	On      Expr // nil if not given
	Using   []Ident
}

func (*With) query()       {}
func (*Ordered) query()    {}
func (*SetOp) query()      {}
func (*Values) query()     {}
func (*TableQuery) query() {}
func (*Select) query()     {}

func (*Table) tableRef()          {}
func (*Derived) tableRef()        {}
func (*TableFunction) tableRef()  {}
func (*Unnest) tableRef()         {}
func (*Join) tableRef()           {}
func (*MatchRecognize) tableRef() {}
