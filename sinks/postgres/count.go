package postgres

import "sync/atomic"

// tableCount counts what was applied to one table. Missing are updates and deletes that found no row.
type tableCount struct {
	table                              string // schema.name at the target
	Inserts, Updates, Deletes, Missing atomic.Int64
	told                               bool // that rows are missing; guarded by Memory
}

func (c *tableCount) add(op statementOp, rows, missing int64) {
	switch op {
	case opInsert:
		c.Inserts.Add(rows)
	case opUpdate:
		c.Updates.Add(rows)
	case opDelete:
		c.Deletes.Add(rows)
	}
	if missing > 0 {
		c.Missing.Add(missing)
	}
}
