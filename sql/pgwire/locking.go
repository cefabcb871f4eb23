package pgwire

import "regexp"

// forUpdate is FOR UPDATE and its weaker forms at the end of a query. Rows are not locked; that the transaction depends on
// them comes to the same when it commits, so that programs which read and then write need not be changed.
const forUpdate = `(?is)\s+for\s+(?:update|no\s+key\s+update|share|key\s+share)(?:\s+of\s+[\w".]+)?(?:\s+(?:nowait|skip\s+locked))?\s*;?\s*$`

// cutLocking takes FOR UPDATE off a query.
func cutLocking(text string) (rest string, locks bool) {
	at := regexp.MustCompile(forUpdate).FindStringIndex(text)
	if at == nil || quoted(text, at[0]) {
		return text, false
	}
	return text[:at[0]], true
}

// quoted tells whether a place lies in a string, a quoted name or a comment.
func quoted(text string, at int) bool {
	for i := 0; i < at; {
		if n := skip(text[i:]); n > 0 {
			if i += n; i > at {
				return true
			}
			continue
		}
		i++
	}
	return false
}
