package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestColumnsComeBack: a column goes and another one of its name comes, or one has a name only for a moment. The log tells
// names and types of columns; which column it is that has a name, the catalog tells, and of the present only.
func TestColumnsComeBack(t *testing.T) {
	cases := map[string][]string{ // T is the table
		"another type":                       {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b text`, `UPDATE T SET v = 100 WHERE id = 1`},
		"another type, with a default":       {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b text NOT NULL DEFAULT 'new'`, `UPDATE T SET v = 100 WHERE id = 1`},
		"a type that its values do not fit":  {`ALTER TABLE T DROP k, ADD k int DEFAULT 5`, `UPDATE T SET b = 3 WHERE id = 2`},
		"two whose values do not fit":        {`ALTER TABLE T DROP v, DROP k, ADD k int, ADD v text`, `INSERT INTO T (id) VALUES (4000)`},
		"the same type of the last":          {`ALTER TABLE T DROP k`, `ALTER TABLE T ADD k text`, `UPDATE T SET v = 100 WHERE id = 1`},
		"the same type":                      {`ALTER TABLE T DROP b`, `ALTER TABLE T ADD b int`, `UPDATE T SET v = 100 WHERE id = 1`},
		"the same type, in one transaction":  {`BEGIN; UPDATE T SET b = 7 WHERE id = 2; ALTER TABLE T DROP b; ALTER TABLE T ADD b int; UPDATE T SET v = 100 WHERE id = 1; COMMIT`},
		"without its unique index":           {`ALTER TABLE T DROP u`, `ALTER TABLE T ADD u int`, `UPDATE T SET u = 1 WHERE id < 5`},
		"renamed for a moment":               {`BEGIN; ALTER TABLE T RENAME v TO w; UPDATE T SET w = 7 WHERE id = 3; ALTER TABLE T DROP w; COMMIT`},
		"renamed for a moment, then a row":   {`BEGIN; ALTER TABLE T RENAME v TO w; UPDATE T SET w = 7 WHERE id = 3; ALTER TABLE T DROP w; COMMIT`, `UPDATE T SET b = 9 WHERE id = 4`},
		"the last one renamed for a moment":  {`BEGIN; ALTER TABLE T RENAME u TO w; UPDATE T SET w = 7000 WHERE id = 3; ALTER TABLE T DROP w; COMMIT`},
		"the key renamed as well":            {`BEGIN; ALTER TABLE T RENAME id TO key; ALTER TABLE T RENAME v TO w; UPDATE T SET w = 7 WHERE key = 3; ALTER TABLE T DROP w; COMMIT`, `UPDATE T SET b = 9 WHERE key = 4`},
		"dropped, and another renamed to it": {`ALTER TABLE T DROP b`, `ALTER TABLE T RENAME v TO b`, `UPDATE T SET b = 100 WHERE id = 1`},
		"three go round":                     {`BEGIN; ALTER TABLE T RENAME v TO x; ALTER TABLE T RENAME b TO v; ALTER TABLE T RENAME u TO b; ALTER TABLE T RENAME x TO u; UPDATE T SET b = 10000 WHERE id = 1; COMMIT`},
		"two change places":                  {`BEGIN; ALTER TABLE T RENAME v TO x; ALTER TABLE T RENAME b TO v; ALTER TABLE T RENAME x TO b; UPDATE T SET b = 100 WHERE id = 1; COMMIT`},
	}
	names := slices.Sorted(maps.Keys(cases))
	for mode, set := range map[string][]string{
		"followed": {}, "while weir is away": {}, "with lanes": {"--set", "sink.lanes=2"}, "try_evolve": {"--set", "schema.change.behavior=try_evolve"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			src, dst := pair(t, 15, 15)
			for i := range names {
				src.exec(t, fmt.Sprintf(`CREATE TABLE t%d(id int PRIMARY KEY, v int, b int, u int UNIQUE, k text); INSERT INTO t%[1]d SELECT i, i, i, i, 'k' FROM generate_series(1, 3000) i`, i))
			}
			m := newMirror(t, src, dst, "public.*", set...)
			m.start()
			m.caughtUp()
			if mode == "while weir is away" {
				m.kill()
			}
			for i, name := range names {
				t.Logf("t%d: %s", i, name)
				for _, sql := range cases[name] {
					src.exec(t, strings.ReplaceAll(sql, " T ", fmt.Sprintf(" t%d ", i)))
				}
			}
			if mode == "while weir is away" {
				m.start()
			}
			m.caughtUp()
			for i, name := range names { // a DROP COLUMN is told with the next row
				key := "id"
				if name == "the key renamed as well" {
					key = "key"
				}
				src.exec(t, fmt.Sprintf(`DELETE FROM t%d WHERE %s = 3000`, i, key))
			}
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
		})
	}
}
