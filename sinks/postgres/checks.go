package postgres

import (
	"strings"

	"github.com/weirstream/weir/internal/pg"
)

// Without the right to be a replica, foreign keys have their say at the end of the epoch's transaction. A table for which a
// check is still to be made can be neither altered nor truncated. At the source there was none left at this point, or the
// change would have been refused there, so they are made now.

// settleChecks makes the checks that are due on tables, and on those that refer to them.
func (t *Target) settleChecks(tables ...*table) {
	if t.replica || len(tables) == 0 {
		return
	}
	var names []string
	for _, tab := range tables {
		names = append(names, "to_regclass("+pg.Literal(tab.qualified())+")")
	}
	list := strings.Join(names, ", ")
	t.app.begin()
	t.wire.statement(`DO $weir_checks$ DECLARE k record; BEGIN
		FOR k IN SELECT DISTINCT n.nspname, c.conname, c.condeferred FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
			WHERE c.condeferrable AND (c.conrelid IN (`+list+`) OR c.confrelid IN (`+list+`)
				OR c.conrelid IN (SELECT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid IN (`+list+`))) LOOP
			EXECUTE format('SET CONSTRAINTS %I.%I IMMEDIATE', k.nspname, k.conname);
			IF k.condeferred THEN EXECUTE format('SET CONSTRAINTS %I.%I DEFERRED', k.nspname, k.conname); END IF;
		END LOOP; END $weir_checks$`, expectation{})
}
