package parser

import "strings"

// Flink reserves some three hundred words. Here a word is reserved only where the grammar could not tell it from a
// name, because columns are called date, value, user and count.

// reserved words are never names unless they are quoted or stand behind a dot.
func reserved(w string) bool {
	switch strings.ToUpper(w) {
	case "ALL", "AND", "ANY", "AS", "BETWEEN", "CASE", "CROSS", "DEFAULT", "DISTINCT", "ELSE", "END", "EXCEPT", "FALSE", "FOR",
		"FROM", "GROUP", "HAVING", "IN", "INNER", "INTERSECT", "INTO", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "NATURAL", "NOT",
		"NULL", "ON", "OR", "ORDER", "RIGHT", "SELECT", "SOME", "TABLE", "THEN", "TRUE", "UNION", "USING", "VALUES", "WHEN",
		"WHERE", "WITH", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP":
		return true
	}
	return false
}

// follows are words that may stand behind an expression or a table, and so are no aliases without AS.
func follows(w string) bool {
	switch strings.ToUpper(w) {
	case "FETCH", "FULL", "ILIKE", "LATERAL", "MATCH_RECOGNIZE", "OFFSET", "OUTER", "OVERLAPS", "PARTITION", "QUALIFY", "RETURNING", "SET",
		"SIMILAR", "TABLESAMPLE", "WINDOW":
		return true
	}
	return reserved(w)
}

// leads are words that begin something else than a name in some place where a name may stand as well. The parser looks
// ahead there; the printer quotes them.
func leads(w string) bool {
	switch strings.ToUpper(w) {
	case "ARRAY", "BOTH", "CONSTRAINT", "CURRENT", "EXISTS", "EXTENDED", "FINAL", "IF", "INTERVAL", "LEADING", "MAP", "OVERWRITE", "PATTERN", "PERMUTE",
		"PRIMARY", "RANGE", "ROW", "ROWS", "RUNNING", "STATEMENT", "TRAILING", "UNBOUNDED", "UNNEST", "WATERMARK":
		return true
	}
	return follows(w) || isClause(w)
}

// bareCall are the functions that are called without parentheses.
func bareCall(w string) bool {
	switch strings.ToUpper(w) {
	case "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP":
		return true
	}
	return false
}

// ownGrammar are functions whose arguments are not always a plain list. Quoted, the name is an ordinary function's.
func ownGrammar(w string) bool {
	switch strings.ToUpper(w) {
	case "CAST", "TRY_CAST", "EXTRACT", "TRIM", "POSITION", "TIMESTAMPADD", "TIMESTAMPDIFF", "JSON_EXISTS", "JSON_VALUE", "JSON_QUERY",
		"JSON_OBJECT", "JSON_OBJECTAGG", "DESCRIPTOR", "ROLLUP", "CUBE":
		return true
	}
	return false
}

// timeUnit folds the plural forms. It gives "" for other words.
func timeUnit(w string) TimeUnit {
	u := strings.ToUpper(w)
	switch u {
	case "YEARS", "QUARTERS", "MONTHS", "WEEKS", "DAYS", "HOURS", "MINUTES", "SECONDS", "MILLISECONDS", "MICROSECONDS", "NANOSECONDS":
		return TimeUnit(strings.TrimSuffix(u, "S"))
	case "YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND", "NANOSECOND",
		"DOW", "DOY", "ISODOW", "ISOYEAR", "EPOCH", "DECADE", "CENTURY", "MILLENNIUM":
		return TimeUnit(u)
	}
	return ""
}

// intervalUnit gives "" for the units that INTERVAL does not take.
func intervalUnit(w string) TimeUnit {
	switch u := timeUnit(w); u {
	case "YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND":
		return u
	}
	return ""
}

func timeUnits() []string {
	return []string{"YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND", "NANOSECOND",
		"DOW", "DOY", "ISODOW", "ISOYEAR", "EPOCH", "DECADE", "CENTURY", "MILLENNIUM"}
}

// clauseWords are what may follow the items of a query.
func clauseWords() []string {
	return []string{"FROM", "WHERE", "GROUP", "HAVING", "WINDOW", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "FETCH", "UNION", "INTERSECT",
		"EXCEPT", "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL", "ON", "USING", "AND", "OR"}
}

// firstWords begin statements.
func firstWords() []string {
	return []string{"ALTER", "BEGIN", "COMMIT", "CREATE", "DELETE", "DESC", "DESCRIBE", "DROP", "EXECUTE", "EXPLAIN", "INSERT", "RESET",
		"ROLLBACK", "SELECT", "SET", "SHOW", "START", "SUBSCRIBE", "TRUNCATE", "UPDATE", "USE", "VALUES", "WITH"}
}

// unbuiltWords begin statements of Flink's and its kin's that are known and not built.
func unbuiltWords() []string {
	return []string{"ADD", "ANALYZE", "CALL", "CHECKPOINT", "COMPILE", "COPY", "LOAD", "MERGE", "REMOVE", "REPLACE", "STOP", "UNLOAD", "UPSERT"}
}

// createObjects are what CREATE creates, unbuiltObjects what it does not create yet.
func createObjects() []string {
	return []string{"CONNECTION", "MIRROR", "TABLE", "VIEW", "MATERIALIZED", "TEMPORARY", "FUNCTION", "CATALOG", "DATABASE", "OR"}
}

func unbuiltObjects() []string {
	return []string{"MODEL", "SOURCE", "SINK", "INDEX", "SCHEMA", "PROCEDURE"}
}

func oneOf(w string, list []string) bool {
	for _, l := range list {
		if strings.EqualFold(w, l) {
			return true
		}
	}
	return false
}
