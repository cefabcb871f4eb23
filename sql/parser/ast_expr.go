package parser

// ColumnRef is a name where a value is expected. What its parts are (a table's name, a column, fields of a row) is for
// the binder to find out.
type ColumnRef struct {
	Pos
	Name Name
}

// Star is * or t.* among the items of a SELECT.
type Star struct {
	Pos
	Qualifier Name
}

// NumberKind says which type an unsigned number has by the way it is written.
type NumberKind uint8

// The kinds of numbers.
const (
	Integer NumberKind = iota // 12
	Decimal                   // 1.5, exact
	Float                     // 1e3, approximate
)

// NumberLit is an unsigned number. A sign is a *Unary around it.
type NumberLit struct {
	Pos
	Kind NumberKind
	Text string
}

// StringLit is a string in any of its forms, decoded.
type StringLit struct {
	Pos
	Value string
}

// BinaryLit is X'..', decoded.
type BinaryLit struct {
	Pos
	Value []byte
}

// BoolLit is TRUE or FALSE.
type BoolLit struct {
	Pos
	Value bool
}

// NullLit is NULL.
type NullLit struct{ Pos }

// TemporalLit is DATE '..', TIME '..', TIMESTAMP '..' or TIMESTAMP_LTZ '..'. The text is not checked.
type TemporalLit struct {
	Pos
	Kind TypeKind // TypeDate, TypeTime, TypeTimestamp or TypeTimestampLTZ
	Text Literal
}

// IntervalLit is INTERVAL '..' unit. The text is not checked.
type IntervalLit struct {
	Pos
	Negative bool
	Text     Literal
	Unit     *IntervalQualifier // nil for Postgres's INTERVAL '5 minutes'
}

// Param is ? or $1.
type Param struct {
	Pos
	Number int // from 1; question marks are numbered in the order of the text
}

// Op is an operator of *Unary, *Binary and *Quantified.
type Op uint8

// The operators.
const (
	OpOr Op = iota + 1
	OpAnd
	OpNot
	OpEq
	OpNe
	OpLt
	OpLe
	OpGt
	OpGe
	OpDistinct    // IS DISTINCT FROM
	OpNotDistinct // IS NOT DISTINCT FROM
	OpOverlaps    // both sides are rows of two
	OpConcat
	OpAdd
	OpSub
	OpMul
	OpDiv
	OpMod
	OpPlus // the sign
	OpNeg  // the sign
)

// Unary is OpNot, OpPlus or OpNeg.
type Unary struct {
	Pos
	Op Op
	X  Expr
}

// Binary is any other operator. OpPos is where the operator stands, Pos where the left side begins.
type Binary struct {
	Pos
	Op    Op
	OpPos Pos
	Left  Expr
	Right Expr
}

// Test is what IS asks for.
type Test uint8

// The tests of IS.
const (
	IsNull Test = iota + 1
	IsTrue
	IsFalse
	IsUnknown
	IsJSON       // IS JSON and IS JSON VALUE
	IsJSONObject // IS JSON OBJECT
	IsJSONArray
	IsJSONScalar
)

// Is is x IS [NOT] test.
type Is struct {
	Pos
	X    Expr
	Not  bool
	Test Test
}

// Between is x [NOT] BETWEEN [SYMMETRIC] low AND high.
type Between struct {
	Pos
	X         Expr
	Not       bool
	Symmetric bool
	Low       Expr
	High      Expr
}

// In is x [NOT] IN (list) or x [NOT] IN (query); one of the two is set.
type In struct {
	Pos
	X     Expr
	Not   bool
	List  []Expr
	Query Query
}

// LikeKind is the language of a pattern.
type LikeKind uint8

// The languages of patterns.
const (
	PatternLike LikeKind = iota
	PatternILike
	PatternSimilar
)

// Like is x [NOT] LIKE pattern [ESCAPE c].
type Like struct {
	Pos
	X       Expr
	Not     bool
	Kind    LikeKind
	Pattern Expr
	Escape  Expr // nil if not given
}

// Quantified is x op ANY (query) or x op ALL (query). Instead of a query an array may stand, as in Postgres.
type Quantified struct {
	Pos
	X     Expr
	Op    Op // OpEq to OpGe
	All   bool
	Query Query
	Array Expr
}

// Exists is EXISTS (query).
type Exists struct {
	Pos
	Query Query
}

// Subquery is a query in parentheses where a value is expected.
type Subquery struct {
	Pos
	Query Query
}

// Row is ROW(a, b) or (a, b).
type Row struct {
	Pos
	Items []Expr
}

// Array is ARRAY[a, b] or ARRAY(query); if Query is nil, it is the former.
type Array struct {
	Pos
	Items []Expr
	Query Query
}

// Map is MAP[k, v, ...].
type Map struct {
	Pos
	Entries []MapEntry
}

// MapEntry is one key with its value.
type MapEntry struct {
	Key   Expr
	Value Expr
}

// Subscript is x[i].
type Subscript struct {
	Pos
	X     Expr
	Index Expr
}

// Field is x.f where x is not a name. If x is one, the field is the last part of a *ColumnRef.
type Field struct {
	Pos
	X    Expr
	Name Ident
}

// Case is CASE [operand] WHEN .. THEN .. [ELSE ..] END.
type Case struct {
	Pos
	Operand Expr // nil if each WHEN holds a condition
	Whens   []When
	Else    Expr // nil if not given
}

// When is one branch of CASE.
type When struct {
	If   Expr
	Then Expr
}

// Cast is CAST(x AS t), TRY_CAST(x AS t) or x::t.
type Cast struct {
	Pos
	X      Expr
	Type   *DataType
	Try    bool
	Colons bool // written as x::t, which means the same as CAST
}

// AtTimeZone is x AT TIME ZONE zone.
type AtTimeZone struct {
	Pos
	X    Expr
	Zone Expr
}

// Extract is EXTRACT(unit FROM x).
type Extract struct {
	Pos
	Unit TimeUnit
	X    Expr
}

// TrimSide says where TRIM takes characters away.
type TrimSide uint8

// The sides.
const (
	TrimBoth TrimSide = iota
	TrimLeading
	TrimTrailing
)

// Trim is TRIM([side] [chars] FROM x) or TRIM(x).
type Trim struct {
	Pos
	Side  TrimSide
	Chars Expr // nil means the space
	X     Expr
}

// Call is a call of a function by name, whether scalar, aggregate or of a table.
//
// Functions with a grammar of their own are calls with plain arguments: SUBSTRING(x FROM a FOR b) has the arguments x,
// a, b; POSITION(a IN b) has a, b; OVERLAY(x PLACING y FROM a FOR b) has x, y, a, b; CEIL(x TO DAY) has x, *Unit;
// TIMESTAMPADD(DAY, a, b) has *Unit, a, b; JSON_OBJECT(KEY k VALUE v, ..) has k, v, ..; JSON_OBJECTAGG has k, v.
type Call struct {
	Pos
	Name        Name // as it was written; case does not count in the names of built-in functions
	Args        []Expr
	Star        bool // COUNT(*)
	Distinct    bool
	Bare        bool         // without parentheses: CURRENT_DATE
	OrderBy     []OrderItem  // inside the parentheses
	OnNull      OnNull       // of the JSON constructors
	Matching    Matching     // RUNNING or FINAL in MATCH_RECOGNIZE
	Nulls       NullHandling // behind the parentheses or inside
	WithinGroup []OrderItem
	Filter      Expr    // nil if not given
	Over        *Window // nil if not given
}

// NullHandling is IGNORE NULLS or RESPECT NULLS.
type NullHandling uint8

// The ways to handle NULLs.
const (
	NullsUnstated NullHandling = iota
	NullsIgnore
	NullsRespect
)

// Matching is over which rows of a match a function looks.
type Matching uint8

// The rows of a match.
const (
	MatchingUnstated Matching = iota
	MatchingRunning
	MatchingFinal
)

// OnNull is what a JSON constructor does with a NULL.
type OnNull uint8

// The behaviours of JSON constructors.
const (
	OnNullUnstated OnNull = iota
	NullOnNull
	AbsentOnNull
)

// Unit is a unit of time among the arguments of a call.
type Unit struct {
	Pos
	Unit TimeUnit
}

// NamedArg is name => value among the arguments of a call.
type NamedArg struct {
	Pos
	Name  Ident
	Value Expr
}

// TableArg is a table among the arguments of a call: TABLE t [PARTITION BY ..] [ORDER BY ..] or a query in parentheses
// with one of these clauses. A query in parentheses without them is a *Subquery.
type TableArg struct {
	Pos
	Table       Name  // TABLE name
	Query       Query // or TABLE (query)
	PartitionBy []Expr
	OrderBy     []OrderItem
}

// Descriptor is DESCRIPTOR(columns).
type Descriptor struct {
	Pos
	Columns []Ident
}

// Default is DEFAULT as an argument or among inserted values.
type Default struct{ Pos }

// JSONBehavior is what a JSON function answers ON EMPTY or ON ERROR.
type JSONBehavior uint8

// The answers.
const (
	JSONUnstated JSONBehavior = iota
	JSONNull
	JSONError
	JSONDefault // an expression
	JSONTrue
	JSONFalse
	JSONUnknown
	JSONEmptyArray
	JSONEmptyObject
)

// JSONExists is JSON_EXISTS(x, path [.. ON ERROR]).
type JSONExists struct {
	Pos
	X       Expr
	Path    Expr
	OnError JSONBehavior
}

// JSONValue is JSON_VALUE(x, path [RETURNING t] [.. ON EMPTY] [.. ON ERROR]).
type JSONValue struct {
	Pos
	X              Expr
	Path           Expr
	Returning      *DataType // nil if not given
	OnEmpty        JSONBehavior
	OnEmptyDefault Expr // of JSONDefault
	OnError        JSONBehavior
	OnErrorDefault Expr // of JSONDefault
}

// JSONWrapper says when JSON_QUERY puts its result into an array.
type JSONWrapper uint8

// The wrappers.
const (
	WrapperUnstated JSONWrapper = iota
	WrapperNever
	WrapperConditional
	WrapperAlways
)

// JSONQuery is JSON_QUERY(x, path [RETURNING t] [wrapper] [.. ON EMPTY] [.. ON ERROR]).
type JSONQuery struct {
	Pos
	X         Expr
	Path      Expr
	Returning *DataType // nil if not given
	Wrapper   JSONWrapper
	OnEmpty   JSONBehavior
	OnError   JSONBehavior
}

func (*ColumnRef) expr()   {}
func (*Star) expr()        {}
func (*NumberLit) expr()   {}
func (*StringLit) expr()   {}
func (*BinaryLit) expr()   {}
func (*BoolLit) expr()     {}
func (*NullLit) expr()     {}
func (*TemporalLit) expr() {}
func (*IntervalLit) expr() {}
func (*Param) expr()       {}
func (*Unary) expr()       {}
func (*Binary) expr()      {}
func (*Is) expr()          {}
func (*Between) expr()     {}
func (*In) expr()          {}
func (*Like) expr()        {}
func (*Quantified) expr()  {}
func (*Exists) expr()      {}
func (*Subquery) expr()    {}
func (*Row) expr()         {}
func (*Array) expr()       {}
func (*Map) expr()         {}
func (*Subscript) expr()   {}
func (*Field) expr()       {}
func (*Case) expr()        {}
func (*Cast) expr()        {}
func (*AtTimeZone) expr()  {}
func (*Extract) expr()     {}
func (*Trim) expr()        {}
func (*Call) expr()        {}
func (*Unit) expr()        {}
func (*NamedArg) expr()    {}
func (*TableArg) expr()    {}
func (*Descriptor) expr()  {}
func (*Default) expr()     {}
func (*JSONExists) expr()  {}
func (*JSONValue) expr()   {}
func (*JSONQuery) expr()   {}
