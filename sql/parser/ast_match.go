package parser

// MatchRecognize is input MATCH_RECOGNIZE (..). In Measures and Defines a *ColumnRef may begin with a pattern variable.
type MatchRecognize struct {
	Pos
	Input        TableRef
	PartitionBy  []Expr
	OrderBy      []OrderItem
	Measures     []Measure
	RowsPerMatch RowsPerMatch
	Skip         *Skip // nil if not given
	Pattern      Pattern
	Within       Expr // nil if not given
	Subsets      []Subset
	Defines      []Define
	Alias        Alias
}

// Measure is one output column.
type Measure struct {
	X     Expr
	Alias Ident
}

// RowsPerMatch is how many rows a match gives.
type RowsPerMatch uint8

// The outputs of a match.
const (
	RowsUnstated RowsPerMatch = iota
	OneRow
	AllRows
	AllRowsShowEmpty
	AllRowsOmitEmpty
	AllRowsWithUnmatched
)

// SkipKind is where the search goes on after a match.
type SkipKind uint8

// The places to go on.
const (
	SkipPastLastRow SkipKind = iota + 1
	SkipToNextRow
	SkipToFirst
	SkipToLast // TO LAST v and TO v
)

// Skip is AFTER MATCH SKIP ..
type Skip struct {
	Pos
	Kind     SkipKind
	Variable Ident // of SkipToFirst and SkipToLast
}

// Subset is name = (variables).
type Subset struct {
	Name  Ident
	Items []Ident
}

// Define is variable AS condition.
type Define struct {
	Name Ident
	Cond Expr
}

// Pattern is one of *PatternVar, *PatternSeq, *PatternAlt, *PatternRepeat, *PatternPermute, *PatternExclude and
// *PatternAnchor.
type Pattern interface {
	Node
	pattern()
}

// PatternVar is a variable.
type PatternVar struct {
	Pos
	Name Ident
}

// PatternSeq is its items one after another; none at all is the empty pattern ().
type PatternSeq struct {
	Pos
	Items []Pattern
}

// PatternAlt is a | b.
type PatternAlt struct {
	Pos
	Items []Pattern
}

// PatternRepeat is x with a quantifier.
type PatternRepeat struct {
	Pos
	X         Pattern
	Min       int
	Max       int // -1 for no limit
	Reluctant bool
}

// PatternPermute is PERMUTE(a, b).
type PatternPermute struct {
	Pos
	Items []Pattern
}

// PatternExclude is {- x -}, which matches as x does and gives no rows.
type PatternExclude struct {
	Pos
	X Pattern
}

// PatternAnchor is ^ or $.
type PatternAnchor struct {
	Pos
	End bool
}

func (*PatternVar) pattern()     {}
func (*PatternSeq) pattern()     {}
func (*PatternAlt) pattern()     {}
func (*PatternRepeat) pattern()  {}
func (*PatternPermute) pattern() {}
func (*PatternExclude) pattern() {}
func (*PatternAnchor) pattern()  {}
