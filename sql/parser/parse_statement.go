package parser

import "strings"

func (p *parser) statement() (Statement, error) {
	t := p.peek()
	if p.queryBegins() || t.isSymbol("(") {
		q, err := p.query()
		if err != nil {
			return nil, err
		}
		return &QueryStatement{t.pos, q}, nil
	}
	if t.kind != word {
		return nil, p.expected("a statement")
	}
	switch strings.ToUpper(t.text) {
	case "SET":
		return p.set()
	case "RESET":
		return p.reset()
	case "CREATE":
		return p.create()
	case "DROP":
		return p.drop()
	case "ALTER":
		return p.alter()
	case "INSERT":
		return p.insert()
	case "UPDATE":
		return p.update()
	case "DELETE":
		return p.delete()
	case "TRUNCATE":
		p.i++
		p.acceptWord("TABLE")
		n, err := p.name("the table's name")
		return &Truncate{t.pos, n}, err
	case "EXECUTE":
		return p.execute()
	case "EXPLAIN":
		return p.explain()
	case "USE":
		return p.use()
	case "SHOW":
		return p.show()
	case "DESCRIBE", "DESC":
		return p.describe()
	case "BEGIN", "START":
		return p.begin()
	case "COMMIT", "END":
		p.i++
		p.transactionWord()
		return &Commit{t.pos}, nil
	case "ROLLBACK":
		p.i++
		p.transactionWord()
		return &Rollback{t.pos}, nil
	case "SUBSCRIBE":
		return p.subscribe()
	}
	if oneOf(t.text, unbuiltWords()) {
		return nil, p.notBuilt(t.pos, strings.ToUpper(t.text))
	}
	return nil, p.expected("a statement", append(firstWords(), unbuiltWords()...)...)
}

func (p *parser) set() (Statement, error) {
	s := &Set{Pos: p.take().pos}
	var err error
	if s.Key, err = p.literal("an option's key"); err != nil {
		return nil, err
	}
	if !p.accept("=") {
		return nil, p.expected("=")
	}
	if s.Value, err = p.literal("the option's value"); err != nil {
		return nil, err
	}
	return s, nil
}

func (p *parser) reset() (Statement, error) {
	s := &Reset{Pos: p.take().pos}
	if p.isSymbol(";") || p.peek().kind == end {
		return s, nil
	}
	l, err := p.literal("an option's key")
	s.Key = &l
	return s, err
}

func (p *parser) insert() (Statement, error) {
	s := &Insert{Pos: p.take().pos}
	w, err := p.choice("INTO", "OVERWRITE")
	if err != nil {
		return nil, err
	}
	s.Overwrite = w == "OVERWRITE"
	p.acceptWord("TABLE")
	if s.Table, err = p.name("the table's name"); err != nil {
		return nil, err
	}
	if s.Hints, err = p.hints(); err != nil {
		return nil, err
	}
	if p.acceptWord("PARTITION") {
		if s.Partition, err = p.partition(); err != nil {
			return nil, err
		}
	}
	// ( begins either a list of columns or a query.
	if n := p.ahead(1); p.isSymbol("(") && (n.kind == quoted || n.kind == word && !reserved(n.text)) {
		if s.Columns, err = p.idents("a column's name"); err != nil {
			return nil, err
		}
	}
	if !p.queryBegins() && !p.isSymbol("(") {
		return nil, p.expected("VALUES or a query", "VALUES", "SELECT", "WITH", "PARTITION")
	}
	if s.Query, err = p.query(); err != nil {
		return nil, err
	}
	if p.acceptWords("ON", "CONFLICT") {
		if err = p.onConflict(s); err != nil {
			return nil, err
		}
	}
	s.Returning, err = p.returning()
	return s, err
}

// partition reads (column = value, ...). A column alone takes its values from the query.
func (p *parser) partition() ([]Assignment, error) {
	var out []Assignment
	err := p.parens("and the partition", func() error {
		var a Assignment
		var err error
		if a.Column, err = p.ident("a column's name"); err != nil {
			return err
		}
		if p.accept("=") {
			a.Value, err = p.expr()
		}
		out = append(out, a)
		return err
	})
	return out, err
}

func (p *parser) update() (Statement, error) {
	s := &Update{Pos: p.take().pos}
	var err error
	if s.Table, err = p.name("the table's name"); err != nil {
		return nil, err
	}
	if s.Alias, err = p.aliasName(); err != nil {
		return nil, err
	}
	if err = p.words("SET"); err != nil {
		return nil, err
	}
	if s.Set, err = p.assigned(); err == nil && p.acceptWord("WHERE") {
		s.Where, err = p.expr()
	}
	if err == nil {
		s.Returning, err = p.returning()
	}
	return s, err
}

func (p *parser) delete() (Statement, error) {
	s := &Delete{Pos: p.take().pos}
	err := p.words("FROM")
	if err != nil {
		return nil, err
	}
	if s.Table, err = p.name("the table's name"); err != nil {
		return nil, err
	}
	if s.Alias, err = p.aliasName(); err != nil {
		return nil, err
	}
	if p.acceptWord("WHERE") {
		s.Where, err = p.expr()
	}
	if err == nil {
		s.Returning, err = p.returning()
	}
	return s, err
}

func (p *parser) execute() (Statement, error) {
	at := p.take().pos
	if p.isWord("PLAN") {
		return nil, p.notBuilt(at, "EXECUTE PLAN")
	}
	if p.isWord("INSERT") { // Flink's EXECUTE INSERT and EXECUTE SELECT mean the statement
		return p.insert()
	}
	if p.queryBegins() {
		return p.statement()
	}
	if err := p.words("STATEMENT", "SET", "BEGIN"); err != nil {
		return nil, err
	}
	return p.statementSet(at)
}

// statementSet reads the inserts up to END.
func (p *parser) statementSet(at Pos) (Statement, error) {
	s := &StatementSet{Pos: at}
	for {
		for p.accept(";") {
		}
		if p.isWord("END") {
			if len(s.Inserts) == 0 {
				return nil, p.expected("an INSERT").WithHint("a statement set holds one INSERT or more")
			}
			p.i++
			return s, nil
		}
		if !p.isWord("INSERT") {
			return nil, p.expected("INSERT or END", "INSERT", "END")
		}
		in, err := p.insert()
		if err != nil {
			return nil, err
		}
		s.Inserts = append(s.Inserts, in.(*Insert))
		if !p.isSymbol(";") {
			return nil, p.notEnded()
		}
	}
}

func (p *parser) explain() (Statement, error) {
	s := &Explain{Pos: p.take().pos}
	details := []string{string(ExplainEstimatedCost), string(ExplainChangelogMode), string(ExplainPlanAdvice), string(ExplainJSONPlan)}
	switch {
	case p.acceptWords("PLAN", "FOR"):
	case p.acceptWord("ANALYZE"):
		s.Analyze = true
	case p.peek().kind == word && oneOf(p.peek().text, details):
		err := p.list(func() error {
			w, err := p.choice(details...)
			s.Details = append(s.Details, ExplainDetail(w))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	t := p.peek()
	var err error
	switch {
	case p.acceptWords("STATEMENT", "SET", "BEGIN"):
		s.Statement, err = p.statementSet(t.pos)
	case p.queryBegins(), t.isSymbol("("), t.isWord("INSERT"), t.isWord("CREATE"), t.isWord("EXECUTE"), t.isWord("UPDATE"), t.isWord("DELETE"):
		s.Statement, err = p.statement()
	default:
		err = p.expected("a statement to explain", append(details, "PLAN", "ANALYZE", "SELECT", "INSERT", "CREATE", "STATEMENT", "WITH")...)
	}
	return s, err
}

func (p *parser) use() (Statement, error) {
	s := &Use{Pos: p.take().pos}
	if n := p.ahead(1); n.kind == word || n.kind == quoted {
		switch {
		case p.acceptWord("CATALOG"):
			s.What = "CATALOG"
		case p.acceptWord("MODULES"):
			s.What = "MODULES"
		}
	}
	err := p.list(func() error {
		n, err := p.name("a database's name")
		s.Names = append(s.Names, n)
		if err == nil && s.What != "MODULES" && p.isSymbol(",") {
			err = p.expected("one name")
		}
		return err
	})
	return s, err
}

// shown are the words behind SHOW that are not settings.
func shown() []string {
	return []string{"CATALOGS", "CONNECTIONS", "DATABASES", "FUNCTIONS", "JARS", "JOBS", "MATERIALIZED TABLES", "MATERIALIZED VIEWS",
		"MIRRORS", "MODELS", "MODULES", "PARTITIONS", "PIPELINES", "PROCEDURES", "TABLES", "VIEWS", "COLUMNS", "CREATE TABLE", "CREATE VIEW",
		"CREATE MATERIALIZED TABLE", "CREATE MATERIALIZED VIEW", "CREATE CATALOG", "CREATE MODEL", "CURRENT CATALOG", "CURRENT DATABASE",
		"USER FUNCTIONS", "FULL MODULES"}
}

func (p *parser) show() (Statement, error) {
	s := &Show{Pos: p.take().pos}
	for _, w := range shown() {
		if p.acceptWords(strings.Split(w, " ")...) {
			s.What = w
			break
		}
	}
	var err error
	if s.What == "" {
		t := p.peek()
		e := p.expected("TABLES, VIEWS or another list after SHOW", shown()...)
		n, err := p.name("what to show")
		if err != nil {
			return nil, err
		}
		// Any other name is a setting's, as in Postgres.
		if e.Hint != "" || t.kind == word && p.peek().kind == word || t.isWord("CURRENT") || t.isWord("CREATE") {
			return nil, e
		}
		s.Name = n
		return s, nil
	}
	switch {
	case strings.HasPrefix(s.What, "CREATE "), s.What == "PARTITIONS":
		s.Name, err = p.name("a name")
		return s, err
	case s.What == "COLUMNS":
		if _, err = p.choice("FROM", "IN"); err != nil {
			return nil, err
		}
		if s.Name, err = p.name("the table's name"); err != nil {
			return nil, err
		}
	case p.acceptWord("FROM"), p.acceptWord("IN"):
		if s.In, err = p.name("a catalog's or database's name"); err != nil {
			return nil, err
		}
	}
	if p.isWord("LIKE") || p.isWord("ILIKE") || p.isWord("NOT") {
		s.Not = p.acceptWord("NOT")
		var w string
		if w, err = p.choice("LIKE", "ILIKE"); err != nil {
			return nil, err
		}
		s.ILike = w == "ILIKE"
		l, err := p.literal("a pattern")
		s.Like = &l
		return s, err
	}
	return s, nil
}

func (p *parser) describe() (Statement, error) {
	s := &Describe{Pos: p.take().pos, Object: ObjectTable}
	if n := p.ahead(1); n.kind == word || n.kind == quoted {
		for _, o := range []ObjectKind{ObjectCatalog, ObjectDatabase, ObjectFunction, ObjectConnection, ObjectMirror, ObjectTable, ObjectView} {
			if p.acceptWord(string(o)) {
				s.Object = o
				break
			}
		}
	}
	if s.Object == ObjectView {
		s.Object = ObjectTable
	}
	if n := p.ahead(1); n.kind == word || n.kind == quoted {
		s.Extended = p.acceptWord("EXTENDED")
	}
	var err error
	s.Name, err = p.name("a name")
	return s, err
}

func (p *parser) transactionWord() {
	if !p.acceptWord("TRANSACTION") {
		p.acceptWord("WORK")
	}
}

// begin reads BEGIN STATEMENT SET, which opens a statement set, or the begin of a transaction.
func (p *parser) begin() (Statement, error) {
	t := p.take()
	if t.isWord("BEGIN") && p.acceptWords("STATEMENT", "SET") {
		if !p.isSymbol(";") {
			return nil, p.expected("; after BEGIN STATEMENT SET")
		}
		return p.statementSet(t.pos)
	}
	s := &Begin{Pos: t.pos}
	if t.isWord("START") {
		if err := p.words("TRANSACTION"); err != nil {
			return nil, err
		}
	} else {
		p.transactionWord()
	}
	for {
		switch {
		case p.acceptWords("READ", "ONLY"):
			s.ReadOnly, s.ReadWrite = true, false
		case p.acceptWords("READ", "WRITE"):
			s.ReadOnly, s.ReadWrite = false, true
		case p.acceptWords("ISOLATION", "LEVEL"):
			for _, level := range []string{"SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED"} {
				if p.acceptWords(strings.Split(level, " ")...) {
					s.Isolation = level
					break
				}
			}
			if s.Isolation == "" {
				return nil, p.expected("an isolation level", "SERIALIZABLE", "REPEATABLE", "READ")
			}
		case p.accept(","):
		default:
			return s, nil
		}
	}
}

func (p *parser) subscribe() (Statement, error) {
	s := &Subscribe{Pos: p.take().pos}
	if n := p.ahead(1); n.kind == word || n.kind == quoted || n.isSymbol("(") {
		p.acceptWord("TO")
	}
	var err error
	if p.queryBegins() || p.isSymbol("(") {
		s.Query, err = p.query()
	} else {
		s.View, err = p.name("a view's name or a query")
	}
	if err == nil && p.isWord("WITH") {
		s.Properties, err = p.options()
	}
	return s, err
}

// Keywords are the statement's first words, which name it in messages: CREATE TABLE, DROP VIEW.
func Keywords(s Statement) string {
	switch s := s.(type) {
	case *CreateConnection:
		return "CREATE CONNECTION"
	case *CreateMirror:
		return "CREATE MIRROR"
	case *CreateTable:
		return "CREATE TABLE"
	case *CreateView:
		return "CREATE VIEW"
	case *CreateMaterializedView:
		return "CREATE MATERIALIZED VIEW"
	case *CreateMaterializedTable:
		return "CREATE MATERIALIZED TABLE"
	case *CreateCatalog:
		return "CREATE CATALOG"
	case *CreateDatabase:
		return "CREATE DATABASE"
	case *CreateFunction:
		return "CREATE FUNCTION"
	case *Drop:
		return "DROP " + string(s.Object)
	case *Alter:
		return "ALTER " + string(s.Object)
	case *QueryStatement:
		switch s.Query.(type) {
		case *With:
			return "WITH"
		case *Values:
			return "VALUES"
		case *TableQuery:
			return "TABLE"
		}
		return "SELECT"
	case *Set:
		return "SET"
	case *Reset:
		return "RESET"
	case *Insert:
		return "INSERT"
	case *Update:
		return "UPDATE"
	case *Delete:
		return "DELETE"
	case *Truncate:
		return "TRUNCATE"
	case *StatementSet:
		return "EXECUTE STATEMENT SET"
	case *Explain:
		return "EXPLAIN"
	case *Use:
		return "USE"
	case *Show:
		return "SHOW"
	case *Describe:
		return "DESCRIBE"
	case *Begin:
		return "BEGIN"
	case *Commit:
		return "COMMIT"
	case *Rollback:
		return "ROLLBACK"
	case *Subscribe:
		return "SUBSCRIBE"
	}
	return "this statement"
}
