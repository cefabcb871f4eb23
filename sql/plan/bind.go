package plan

import (
	"strings"

	"github.com/weirstream/weir/engine/expr"
	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/sql/parser"
)

// binder resolves the names of one file.
type binder struct {
	env      Environment
	file     string
	text     string
	catalog  *catalog
	asOf     bool // FOR SYSTEM_TIME AS OF may follow the table that is bound
	depth    int
	warnings []*errs.Error
	params   []Param
	reads    []string                       // what the statement names
	added    int                            // which of the added statements is bound; 0: one of the file
	serves   bool                           // the query is answered at once and may have parameters
	created  map[string]*parser.CreateTable // by the table's name
	hinted   map[string]*object             // tables with other options
	ttl      int64                          // table.exec.state.ttl in µs
	ttlAt    parser.Pos
	ttls     []*expiring          // of STATE_TTL
	fromTTLs map[string]*expiring // of the SELECT whose FROM is bound
	domains  int                  // how many subqueries were bound with a domain
	width    int                  // of the output of the SELECT that was bound last, without what only ORDER BY needs
}

func (b *binder) fail(code errs.Code, at parser.Pos, format string, args ...any) *errs.Error {
	return errs.New(code, format, args...).At(parser.Locate(b.file, b.text, at))
}

// place gives an error of a resolved expression the place of what was written.
func (b *binder) place(err error, at parser.Pos) error {
	if err == nil {
		return nil
	}
	if e, ok := errs.As(err); ok && e.Pos == nil {
		return e.At(parser.Locate(b.file, b.text, at))
	}
	return err
}

// scope is the names that an expression may use: the columns of a relation, with the table that each came from.
type scope struct {
	star []int // the order of *; nil: that of cols
	cols []scopeColumn
	// outer is the scope around a subquery. Its columns are given as expr.Column of a negative index, see outerColumn.
	outer *scope
	// domain has columns of outer, which then are the first columns of the relation itself.
	domain *domain
	// common are the CTEs in reach.
	common *ctes
}

type scopeColumn struct {
	table  string // alias or name; "" if none
	name   string
	typ    row.Type
	hidden bool // not among *
	merged bool // by USING with a column of the same name, which is meant where no table is named
}

type ctes struct {
	name   string
	rel    rel
	parent *ctes
}

// outerColumn is column i of the scope around.
func outerColumn(i int) int { return -1 - i }

// reach is the number, in s, of a column of the scope that is so many levels around it: one of s itself, or an outer one.
func (s *scope) reach(level, column int) (int, bool) {
	if level == 0 {
		return column, true
	}
	if level > 1 {
		var ok bool
		if column, ok = s.outer.reach(level-1, column); !ok || column < 0 {
			return 0, false
		}
	}
	if s.domain != nil {
		return s.domain.at(column)
	}
	return outerColumn(column), true
}

func scopeOf(table string, s row.Schema) *scope {
	sc := &scope{}
	for _, f := range s {
		sc.cols = append(sc.cols, scopeColumn{table: table, name: f.Name, typ: f.Type})
	}
	return sc
}

// starOrder is the order in which * gives the columns.
func (s *scope) starOrder() []int {
	if s.star != nil {
		return s.star
	}
	order := make([]int, len(s.cols))
	for i := range order {
		order[i] = i
	}
	return order
}

// lookup finds a column by its table and name. Case counts first; where nothing fits, another case does, if only one
// column has it.
func (s *scope) lookup(table, name string) (found []int) {
	for i, c := range s.cols {
		if c.name == name && (table == "" && !c.merged || c.table == table && table != "") {
			found = append(found, i)
		}
	}
	if found == nil {
		for i, c := range s.cols {
			if strings.EqualFold(c.name, name) && (table == "" && !c.merged || table != "" && strings.EqualFold(c.table, table)) {
				found = append(found, i)
			}
		}
	}
	return found
}

func (s *scope) hasTable(name string) bool {
	for _, c := range s.cols {
		if strings.EqualFold(c.table, name) {
			return true
		}
	}
	return false
}

// column resolves a name: column, table.column, or a column followed by fields of its row.
func (b *binder) column(s *scope, ref *parser.ColumnRef) (expr.Expr, error) {
	parts := ref.Name
	// The name of a table counts before a column with fields, even if the table is that of the query around.
	type look struct {
		sc        *scope
		level     int
		qualified bool
	}
	var looks []look
	for _, qualified := range []bool{true, false} {
		for sc, level := s, 0; sc != nil; sc, level = sc.outer, level+1 {
			looks = append(looks, look{sc, level, qualified})
		}
	}
	for _, at := range looks {
		sc, level, qualified := at.sc, at.level, at.qualified
		if qualified && len(parts) == 1 {
			continue
		}
		try := func(table, name string, fields []parser.Ident) (expr.Expr, bool, error) {
			found := sc.lookup(table, name)
			if len(found) == 0 {
				return nil, false, nil
			}
			if len(found) > 1 {
				var tables []string
				for _, i := range found {
					tables = append(tables, sc.cols[i].table)
				}
				return nil, true, b.fail(errs.SQLUnknownName, ref.Pos, "column %s is in more than one table", name).WithHint("write which one: %s.%s or %s.%s", tables[0], name, tables[1], name)
			}
			i, ok := s.reach(level, found[0])
			if !ok {
				return nil, true, b.fail(errs.NotBuiltYet, ref.Pos, "column %s of a query further out is not built yet in this place", name)
			}
			var e expr.Expr = &expr.Column{Index: i, T: sc.cols[found[0]].typ}
			for _, f := range fields {
				var err error
				if e, err = expr.Resolve(".", []expr.Expr{e, expr.Str(f.Text)}); err != nil {
					return nil, true, b.place(err, f.Pos)
				}
			}
			return e, true, nil
		}
		if qualified && sc.hasTable(parts[0].Text) {
			if e, ok, err := try(parts[0].Text, parts[1].Text, parts[2:]); ok {
				return e, err
			}
		}
		// catalog.database.table.column is not told apart from its table.
		if qualified && len(parts) > 2 && sc.hasTable(parts[len(parts)-2].Text) {
			if e, ok, err := try(parts[len(parts)-2].Text, parts[len(parts)-1].Text, nil); ok {
				return e, err
			}
		}
		if qualified {
			continue
		}
		if e, ok, err := try("", parts[0].Text, parts[1:]); ok {
			return e, err
		}
	}
	var names []string
	for _, c := range s.cols {
		names = append(names, c.name)
		if len(parts) > 1 {
			names = append(names, c.table+"."+c.name)
		}
	}
	var text []string
	for _, p := range parts {
		text = append(text, p.Text)
	}
	name := strings.Join(text, ".")
	e := b.fail(errs.SQLUnknownName, ref.Pos, "there is no column %s", name)
	if hint := nearest.Hint(name, names); hint != "" {
		return nil, e.WithHint("%s", hint)
	}
	if len(names) > 0 && len(names) < 20 {
		return nil, e.WithHint("the columns here are %s", strings.Join(names, ", "))
	}
	return nil, e
}
