package parser

import (
	"os"
	"strings"
	"testing"
)

// TestNexmark parses the queries of the Nexmark benchmark in Flink's dialect, each followed by the next.
func TestNexmark(t *testing.T) {
	text, err := os.ReadFile("testdata/nexmark.sql")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "-- q")
	if len(blocks) != 26 { // the tables, q0 to q23 and q5 in the old form
		t.Fatalf("%d parts", len(blocks))
	}
	for _, block := range blocks {
		title, _, _ := strings.Cut(block, "\n")
		script, err := Parse("q.sql", "-- q"+block)
		if err != nil {
			t.Errorf("q%s: %s", title, rendered(err))
			continue
		}
		if len(script.Statements) == 0 {
			t.Errorf("q%s is empty", title)
		}
		again, err := Parse("q.sql", Print(script))
		if err != nil || !same(script, again) {
			t.Errorf("q%s: %v\n%s", title, err, Print(script))
		}
	}
}
