package nearest

import "testing"

func TestOf(t *testing.T) {
	words := []string{"pipelines", "sources", "secrets", "pause", "checkpoint.interval"}
	for word, want := range map[string]string{
		"pipelines":             "pipelines",
		"pipelnes":              "pipelines",
		"pipeliens":             "pipelines",
		"PAUSE":                 "pause",
		"sorces":                "sources",
		"checkpoint":            "checkpoint.interval",
		"chekpoint.intervall":   "checkpoint.interval",
		"kafka":                 "",
		"":                      "",
		"completely-other-word": "",
	} {
		if got := Of(word, words); got != want {
			t.Errorf("Of(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestHint(t *testing.T) {
	if got := Hint("pasue", []string{"pause"}); got != "did you mean pause?" {
		t.Errorf("Hint = %q", got)
	}
	if got := Hint("x", []string{"pause"}); got != "" {
		t.Errorf("Hint without a near word = %q", got)
	}
}
