package options

import (
	"fmt"
	"strings"
)

// Markdown is docs/options.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Options

An option is set, first one wins, by ` + "`--set key=value`" + `, by the environment (` + "`WEIR_`" + ` and the key in capitals, dots and hyphens as
underscores), by ` + "`SET 'key' = 'value'`" + ` in the pipeline's file, or by ` + "`weir.yaml`" + ` in the working directory. An unknown key is an
error with the nearest match. ` + "`weir config explain KEY`" + ` shows the value in force and where it comes from.

Sizes are powers of 1024, as in Postgres and Flink; durations read ` + "`50ms`, `10 s`, `2min`" + `. Flink's keys are accepted as aliases.
`)
	for _, scope := range []Scope{Pipeline, Server} {
		fmt.Fprintf(&b, "\n## Options of a %s\n", scope)
		for _, o := range All() {
			if o.Scope != scope {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", o.Key, o.Help)
			fmt.Fprintf(&b, "- type: %s\n", o.Type())
			if o.Default != "" {
				fmt.Fprintf(&b, "- default: `%s`\n", o.Default)
			}
			fmt.Fprintf(&b, "- environment: `%s`\n", o.EnvName())
			for _, a := range o.Aliases {
				fmt.Fprintf(&b, "- alias: `%s`\n", a)
			}
		}
	}
	return b.String()
}

// Type is the kind with its values or bounds, for people.
func (o Option) Type() string {
	if o.Kind == Enum {
		return strings.Join(o.Values, " | ")
	}
	return string(o.Kind) + o.bounds()
}
