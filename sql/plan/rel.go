package plan

import (
	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/operator"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/sql/parser"
)

// rel is a relation of the logical plan: what a query means, before it is decided how it is computed. Expressions count
// the columns of the inputs, of a join those of the left side and then those of the right.
type rel interface {
	columns() row.Schema
}

type (
	// scan reads a table of a source.
	scan struct{ table *table }

	values struct {
		schema row.Schema
		rows   [][]*expr.Const
	}

	filter struct {
		in   rel
		cond expr.Expr
	}

	project struct {
		in     rel
		exprs  []expr.Expr
		schema row.Schema
	}

	join struct {
		kind        joinKind
		left, right rel
		cond        expr.Expr // nil: none
		pos         parser.Pos
		// static: the right side is a table that does not change, in which the rows of the left are looked up.
		static bool
	}

	// aggregate's columns are the group's and then the calls'. Arguments are columns.
	aggregate struct {
		in     rel
		group  []int
		calls  []operator.AggCall
		schema row.Schema
		pos    parser.Pos // of a DISTINCT; otherwise none
	}

	// top is ROW_NUMBER over partitions, with the places that are kept. Its columns are the input's and, with rank, the
	// place.
	top struct {
		in        rel
		partition []int
		order     []orderColumn
		limit     int64 // -1: all
		offset    int64
		rank      bool
		rankName  string
		pos       parser.Pos // of ROW_NUMBER; otherwise none
	}

	union struct {
		in     []rel
		schema row.Schema
	}
)

type orderColumn struct {
	column    int
	desc      bool
	nullsLast bool
}

type joinKind uint8

const (
	innerJoin joinKind = iota + 1
	leftJoin
	rightJoin
	fullJoin
	semiJoin
	antiJoin
	markJoin // the left rows, and a column that tells whether a row of the right matches
)

func (k joinKind) String() string {
	return [...]string{"", "inner", "left", "right", "full", "semi", "anti", "mark"}[k]
}

func (r *scan) columns() row.Schema      { return r.table.schema }
func (r *values) columns() row.Schema    { return r.schema }
func (r *filter) columns() row.Schema    { return r.in.columns() }
func (r *project) columns() row.Schema   { return r.schema }
func (r *aggregate) columns() row.Schema { return r.schema }
func (r *union) columns() row.Schema     { return r.schema }

func (r *join) columns() row.Schema {
	nullable := func(s row.Schema, yes bool) row.Schema {
		out := append(row.Schema(nil), s...)
		for i := range out {
			if yes {
				out[i].Type.NotNull = false
			}
		}
		return out
	}
	left := nullable(r.left.columns(), r.kind == rightJoin || r.kind == fullJoin)
	if r.kind == semiJoin || r.kind == antiJoin {
		return left
	}
	if r.kind == markJoin {
		return append(left, row.Field{Name: "$mark", Type: row.Type{Kind: row.Boolean, NotNull: true}})
	}
	return append(left, nullable(r.right.columns(), r.kind == leftJoin || r.kind == fullJoin)...)
}

func (r *top) columns() row.Schema {
	s := append(row.Schema(nil), r.in.columns()...)
	if r.rank {
		s = append(s, row.Field{Name: r.rankName, Type: row.Type{Kind: row.BigInt, NotNull: true}})
	}
	return s
}

// identity is a projection of all columns of in.
func identity(in rel) *project {
	s := in.columns()
	p := &project{in: in, schema: s}
	for i := range s {
		p.exprs = append(p.exprs, column(s, i))
	}
	return p
}

func column(s row.Schema, i int) *expr.Column {
	return &expr.Column{Index: i, T: s[i].Type, Name: ""}
}
