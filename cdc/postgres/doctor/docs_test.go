package doctor_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page and the code know the same checks.
func TestEveryCheckIsOnThePage(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	inCode := map[string]bool{}
	id := regexp.MustCompile(`"((?:pg|tgt|cut)\.[a-z_]+)"`)
	for _, dir := range []string{"cdc/postgres/doctor", "sinks/postgres/doctor", "cdc/postgres/plan"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range id.FindAllStringSubmatch(string(text), -1) {
				inCode[m[1]] = true
			}
		}
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	var onPage []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		if slices.Contains(onPage, m[1]) {
			t.Errorf("%s is on the page twice", m[1])
		}
		onPage = append(onPage, m[1])
		if !inCode[m[1]] {
			t.Errorf("%s is on the page and not in the code", m[1])
		}
	}
	for c := range inCode {
		if !slices.Contains(onPage, c) {
			t.Errorf("%s is in the code and not on the page", c)
		}
	}
	if len(onPage) != 56 {
		t.Errorf("%d checks on the page", len(onPage))
	}
}
