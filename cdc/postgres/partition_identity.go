package postgres

import (
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/pgoutput"
	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// A partitioned table is published as one: the log describes the root, and a row tells of what it was before as much as the
// replica identity of its partition says. Where that is less than the root's, an old row comes without its key, or not at
// all, and reads like any other. So not the rows are looked at but the partitions: the server describes each in front of
// its first row, and again when its identity has changed.

// partition implements relationSource.
func (s *Source) partition(root, leaf *pgoutput.RelationMsg, counts bool) error {
	joined, joins := s.tables[root.ID] != nil, s.copies[root.ID] != nil
	if !joined && !joins || identifies(leaf, root) {
		return nil
	}
	if !counts || !joined {
		// What is passed over may be from before it was mended; if it was not, the rows to come are as bad.
		poor, err := s.poorPartitions(root.ID)
		if err != nil || !slices.ContainsFunc(poor, func(p poorPartition) bool { return p.oid == leaf.ID }) {
			return err
		}
	}
	name := pg.TargetName{Schema: leaf.Namespace, Name: leaf.Name}
	table := pg.TargetName{Schema: root.Namespace, Name: root.Name}
	return errs.New(errs.TableUnsupported, "partition %s of %s has a replica identity of its own that does not tell which rows of %[2]s it updates and deletes",
		pg.DottedName(name.Schema, name.Name), pg.DottedName(table.Schema, table.Name)).
		WithFix(mendPartition(name, root.Identity)).
		WithHint("run the SQL above, then have the table copied anew: weir sources refresh '%s'; weir pipelines resume NAME", selection.Quote(table))
}

// mendPartition is the SQL that gives a partition an identity that tells at least what its root's does. A partition has its
// root's primary key, but nothing tells the name of its part of another index.
func mendPartition(name pg.TargetName, root byte) string {
	to := "FULL"
	if root == 'd' {
		to = "DEFAULT"
	}
	return "ALTER TABLE " + name.String() + " REPLICA IDENTITY " + to + ";"
}

// identifies tells whether a partition's old rows have what the root's identity promises. Without an identity the server
// refuses to update or delete its rows at all.
func identifies(leaf, root *pgoutput.RelationMsg) bool {
	if leaf.Identity == 'f' {
		return true
	}
	keyed := func(m *pgoutput.RelationMsg) (keys []string) {
		for _, c := range m.Columns {
			if c.Key {
				keys = append(keys, c.Name)
			}
		}
		return keys
	}
	wanted, has := keyed(root), keyed(leaf)
	return len(has) == 0 || root.Identity != 'f' && len(wanted) > 0 && covers(has, wanted)
}

func covers(has, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(c string) bool { return !slices.Contains(has, c) })
}

// poorPartition is a partition whose identity tells less than its root's, as the catalog has it now.
type poorPartition struct {
	oid  uint32
	name pg.TargetName
}

// poorPartitions asks for nothing that takes a lock, and so not for pg_partition_tree.
func (s *Source) poorPartitions(root uint32) ([]poorPartition, error) {
	rows, err := s.ctl.Query(s.ctx, `
		WITH rel AS (SELECT c.oid, n.nspname, c.relname, c.relreplident, ARRAY(
				SELECT a.attname::text FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
				WHERE x.indrelid = c.oid AND x.indisvalid AND x.indimmediate
				  AND (c.relreplident = 'd' AND x.indisprimary OR c.relreplident = 'i' AND x.indisreplident)) AS key
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.oid = $1::oid OR c.relispartition AND c.relkind = 'r' AND pg_partition_root(c.oid) = $1::oid)
		SELECT l.oid::int8, l.nspname::text, l.relname::text FROM rel r, rel l
		WHERE r.oid = $1::oid AND l.oid <> r.oid AND l.relreplident <> 'f' AND l.key <> '{}'
		  AND (r.relreplident = 'f' OR r.key = '{}' OR NOT l.key @> r.key)
		ORDER BY 2, 3`, fmt.Sprint(root))
	if err != nil {
		return nil, s.lost(err)
	}
	poor, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p poorPartition, err error) {
		var oid int64
		err = row.Scan(&oid, &p.name.Schema, &p.name.Name)
		p.oid = uint32(oid)
		return p, err
	})
	if err != nil {
		return nil, s.lost(err)
	}
	return poor, nil
}
