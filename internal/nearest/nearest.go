// Package nearest finds the word that a user probably meant, for "did you mean" in errors. It never guesses wildly:
// beyond a third of the word's length there is no suggestion, because a wrong one costs more than none.
package nearest

import "strings"

// Of returns the candidate closest to word, or "" when none is close. Case does not count; of equally close ones the
// first wins.
func Of(word string, candidates []string) string {
	best, limit := "", max(1, len(word)/3)
	for _, c := range candidates {
		d := distance(strings.ToLower(word), strings.ToLower(c), limit)
		if d <= limit {
			best, limit = c, d-1
		}
		if d == 0 {
			return c
		}
	}
	if best != "" || len(word) < 4 {
		return best
	}
	for _, c := range candidates { // half a word is a common slip: checkpoint for checkpoint.interval
		if strings.HasPrefix(strings.ToLower(c), strings.ToLower(word)) {
			return c
		}
	}
	return ""
}

// Hint is Of as the sentence that follows an error, or "".
func Hint(word string, candidates []string) string {
	if c := Of(word, candidates); c != "" {
		return "did you mean " + c + "?"
	}
	return ""
}

// distance counts insertions, deletions, replacements and swaps of neighbours (optimal string alignment). Above limit
// the exact number does not matter.
func distance(a, b string, limit int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) > limit || len(y)-len(x) > limit {
		return limit + 1
	}
	before, prev, cur := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		cur[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(y)]
}
