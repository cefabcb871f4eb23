package e2e

import "testing"

// TestNamesChangeHands: a table takes the name that another one had, as deployments do that fill a new table and put it
// into the old one's place. The log tells of the first only; the second may get no row for long.
func TestNamesChangeHands(t *testing.T) {
	for name, sql := range map[string]string{
		"the old table steps aside": `BEGIN; ALTER TABLE a RENAME TO a_old; ALTER TABLE b RENAME TO a; COMMIT`,
		"the old table is dropped":  `BEGIN; DROP TABLE a; ALTER TABLE b RENAME TO a; COMMIT`,
		"two swap":                  `BEGIN; ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; COMMIT`,
		"three go round":            `BEGIN; CREATE TABLE d(id int PRIMARY KEY, v text); ALTER TABLE a RENAME TO e; ALTER TABLE b RENAME TO a; ALTER TABLE d RENAME TO b; ALTER TABLE e RENAME TO d; COMMIT`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, killed := range []bool{false, true} {
				m := live(t, "--set", "discovery.interval=3s")
				if killed {
					m.kill()
				}
				m.src.exec(t, sql, `INSERT INTO a VALUES (9000, 'the new one')`, `UPDATE a SET v = 'changed' WHERE id < 10`)
				if killed {
					m.start()
				}
				m.caughtUp()
				requireEqual(t, m.src, m.dst)
				m.src.exec(t, `INSERT INTO a VALUES (9001, 'later')`)
				m.caughtUp()
				requireEqual(t, m.src, m.dst)
				m.stop()
			}
		})
	}
}
