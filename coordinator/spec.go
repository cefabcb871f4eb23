package coordinator

import (
	"regexp"
	"strings"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
)

// namePattern keeps names usable in paths, labels and shells without quoting.
const namePattern = `^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`

// checkSpec refuses what must never enter the catalog. What the databases think of it is the doctor's matter.
func checkSpec(m api.MirrorSpec) *errs.Error {
	if err := CheckName(m.Name); err != nil {
		return err
	}
	if err := checkNoPassword("source", m.Source); err != nil {
		return err
	}
	return checkNoPassword("target", m.Target)
}

// checkQuery refuses what must never enter the catalog. Whether the text holds a password the proposer has to see: only
// its parser of this day could tell, and an entry must mean the same on every node.
func checkQuery(q api.QuerySpec) *errs.Error {
	if err := CheckName(q.Name); err != nil {
		return err
	}
	if strings.TrimSpace(q.SQL) == "" && len(q.Added) == 0 {
		return errs.New(errs.BadFlag, "pipeline %q has no SQL", q.Name)
	}
	return nil
}

// CheckName refuses what cannot name a pipeline.
func CheckName(name string) *errs.Error {
	if regexp.MustCompile(namePattern).MatchString(name) {
		return nil
	}
	return errs.New(errs.BadFlag, "%q cannot name a pipeline", name).
		WithHint("use up to 63 letters, digits, underscores, dots and hyphens")
}

// checkNoPassword is the last gate before a secret would be replicated, written to disk and shown.
func checkNoPassword(what string, c api.Connection) *errs.Error {
	if !holdsPassword(c.URL) {
		return nil
	}
	return errs.New(errs.BadURL, "the URL of the %s holds a password", what).
		WithHint("put it into the environment and write ${env:NAME} in its place, or store it as a secret and write ${secret:NAME}")
}

// holdsPassword looks for a password that is not a reference, in a URL (between the first colon and the last @ of its
// authority, or as a parameter) and in a list of key=value words. url.Parse is no help: it refuses ${...}.
func holdsPassword(url string) bool {
	_, rest, isURL := strings.Cut(url, "://")
	if !isURL {
		return anyPasswordWord(strings.Fields(url))
	}
	rest, query, _ := strings.Cut(rest, "?")
	if anyPasswordWord(strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })) {
		return true
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return false
	}
	_, password, ok := strings.Cut(rest[:at], ":")
	return ok && !isReference(password)
}

func anyPasswordWord(words []string) bool {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch strings.ToLower(key) {
		case "password", "passwd", "pwd", "sslpassword":
			if !isReference(value) {
				return true
			}
		}
	}
	return false
}

func isReference(s string) bool {
	s = strings.Trim(s, "'")
	return s == "" || strings.HasPrefix(s, "${") && strings.HasSuffix(s, "}")
}

// nearest finds the candidate that a mistyped word most likely meant, or "".
func nearest(word string, candidates []string) string {
	best, bestAt := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
