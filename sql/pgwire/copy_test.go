package pgwire

import (
	"fmt"
	"strings"
	"testing"
)

// copied is what a COPY makes of data that comes in pieces: rows, or the error that ends it.
func copied(c *copying, pieces ...[]byte) string {
	in := &copyInput{c: c, cols: []int{0, 1}}
	var out strings.Builder
	for i, p := range pieces {
		in.rest = append(in.rest, p...)
		last := i == len(pieces)-1
		for !in.ended {
			n, fields, err := in.row(last)
			if err != nil {
				fmt.Fprint(&out, "error ", err)
				return out.String()
			}
			if n == 0 {
				break
			}
			in.rest = in.rest[n:]
			if fields != nil {
				fmt.Fprintf(&out, "%q ", fields)
				for _, f := range fields {
					fmt.Fprint(&out, f == nil)
				}
			}
		}
	}
	fmt.Fprintf(&out, " %d left", len(in.rest))
	if in.ended {
		return out.String()[:strings.LastIndex(out.String(), " ")] // how much follows the end mark does not matter
	}
	return out.String()
}

// FuzzCopy: whatever a client sends is taken or refused, the same in one piece and in two.
func FuzzCopy(f *testing.F) {
	for _, s := range []string{"1\ta\n2\t\\N\n", "1,\"a\nb\"\"\"\n2,\n\\.\nrest", "x\ty\\tz\\101\\\\\n", copySignature + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01a\xff\xff\xff\xff\xff\xff", "a,b\r\n\"\",x", "\\"} {
		for format := range byte(3) {
			f.Add([]byte(s), format, uint16(5))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, format byte, cut uint16) {
		c := &copying{format: []string{"text", "csv", "binary"}[format%3], delim: '\t', null: `\N`}
		if c.format == "csv" {
			c.delim, c.null = ',', ""
		}
		at := int(cut) % (len(data) + 1)
		whole, parts := copied(c, data), copied(c, data[:at:at], data[at:])
		if whole != parts {
			t.Errorf("%q as a whole:\n%s\ncut at %d:\n%s", data, whole, at, parts)
		}
	})
}

func TestCopyStatements(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"COPY t FROM STDIN", `{table:t columns:[] format:text delim:9 null:\N header:false}`},
		{"copy public.\"T x\" ( a, \"B\" ) from stdin with (format csv, header, delimiter ';', null 'x')", `{table:T x columns:[a B] format:csv delim:59 null:x header:true}`},
		{"COPY t FROM STDIN CSV HEADER DELIMITER AS '|' NULL AS ''", `{table:t columns:[] format:csv delim:124 null: header:true}`},
		{`COPY t FROM STDIN WITH (DELIMITER E'\t', HEADER false);`, `{table:t columns:[] format:text delim:9 null:\N header:false}`},
		{`copy "t" ( "a" ) from stdin binary;`, `{table:t columns:[a] format:binary delim:0 null: header:false}`},
		{"COPY pgbench_accounts FROM STDIN WITH (FREEZE ON)", `{table:pgbench_accounts columns:[] format:text delim:9 null:\N header:false}`},
		{"COPY t (a FROM STDIN", "syntax error in COPY: the list of columns does not end"},
		{"COPY t FROM '/etc/passwd'", "COPY FROM a file of the server is not built yet"},
		{"COPY t TO STDOUT", "COPY TO is not built yet"},
		{"COPY t FROM STDIN WITH (FORMAT xml)", `COPY format "xml" not recognized`},
		{"COPY t FROM STDIN WITH (DELIMITER 'ab')", "COPY delimiter must be a single one-byte character"},
		{"COPY t FROM STDIN WITH (QUOTE '''')", "QUOTE"},
		{"COPY t FROM STDIN WITH (FAST)", "syntax error in COPY: option FAST is not known"},
		{"COPY t", "syntax error in COPY: FROM is expected behind the table"},
	} {
		p, err := (&session{}).prepareCopy(c.sql)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprintf("%+v", *p.copies)
		}
		if !strings.HasPrefix(got, c.want) && !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.sql, got)
		}
	}
}

func TestCutLocking(t *testing.T) {
	for _, c := range []struct {
		sql, rest string
		locks     bool
	}{
		{"SELECT 1 FOR UPDATE", "SELECT 1", true},
		{"SELECT * FROM t WHERE a = 'x' for no key update OF t NOWAIT;", "SELECT * FROM t WHERE a = 'x'", true},
		{"SELECT 'a for update", "SELECT 'a for update", false},
		{"SELECT ' for update'", "SELECT ' for update'", false},
		{"SELECT 1 -- for update", "SELECT 1 -- for update", false},
		{"SELECT a FROM t FOR SHARE SKIP LOCKED", "SELECT a FROM t", true},
		{"SELECT for_update FROM t", "SELECT for_update FROM t", false},
	} {
		if rest, locks := cutLocking(c.sql); rest != c.rest || locks != c.locks {
			t.Errorf("%s: %q, %v", c.sql, rest, locks)
		}
	}
}
