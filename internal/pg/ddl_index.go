package pg

import (
	"errors"
	"strings"
)

var errIndexDef = errors.New("its definition has an unknown form")

// retargetIndex gives the server's definition of an index another name and another table. Only the head is read; what
// follows USING speaks of columns alone and is kept byte by byte.
func retargetIndex(def, name string, target TargetName) (string, error) {
	rest, unique := def, ""
	ok := false
	if rest, ok = strings.CutPrefix(rest, "CREATE "); !ok {
		return "", errIndexDef
	}
	if r, ok := strings.CutPrefix(rest, "UNIQUE "); ok {
		rest, unique = r, "UNIQUE "
	}
	if rest, ok = strings.CutPrefix(rest, "INDEX "); !ok {
		return "", errIndexDef
	}
	if rest, ok = skipIdent(rest); !ok {
		return "", errIndexDef
	}
	if rest, ok = strings.CutPrefix(rest, " ON "); !ok {
		return "", errIndexDef
	}
	// ONLY stands before the name of a partitioned table. A table may be called only, but then it is quoted.
	rest = strings.TrimPrefix(rest, "ONLY ")
	for {
		if rest, ok = skipIdent(rest); !ok {
			return "", errIndexDef
		}
		r, dot := strings.CutPrefix(rest, ".")
		if !dot {
			break
		}
		rest = r
	}
	if !strings.HasPrefix(rest, " USING ") {
		return "", errIndexDef
	}
	return "CREATE " + unique + "INDEX " + Ident(name) + " ON " + target.String() + rest, nil
}

// skipIdent passes one name as the server writes it: quoted, or up to the next space or dot.
func skipIdent(s string) (rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ` ."`)
		return s[max(i, 0):], i > 0
	}
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '"' {
			i++
			continue
		}
		return s[i+1:], true
	}
	return s, false
}
