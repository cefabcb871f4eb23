package postgres

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Of a TRUNCATE of a partition alone the log says nothing under the root's name, nor of rows that a table had when it was
// attached. So each look at the catalog tells where the partitions have their rows, which is stored, and what has changed
// since the look before has the table copied again.

// partition is a leaf of a partitioned table as a look at the catalog found it.
type partition struct {
	root, oid uint32
	files     partitionFiles
	blank     bool   // since its files were made nobody has counted rows in it, as behind a TRUNCATE
	writer    uint32 // the transaction that altered it last, as far as pg_class tells
	attached  bool   // it was a table before it was a partition
}

// partitionFiles is where a partition has its rows. A TRUNCATE gives it another file, as does a command that writes the
// table anew (VACUUM FULL, CLUSTER, pg_repack, some of ALTER TABLE).
type partitionFiles struct {
	File  uint32 `json:"file"`
	Large uint32 `json:"large,omitempty"` // its table for large values, 0 for none; it is another behind an ALTER TABLE
	Space uint32 `json:"space,omitempty"`
}

// truncated tells whether a partition was emptied since its files were those that are known. away: weir has not looked all
// the time. Commands that write a table anew count its rows. So does whoever vacuums or analyzes one that was emptied and
// filled, which may have happened while weir was away.
func (p *partition) truncated(known partitionFiles, away bool) bool {
	if p.files.File == known.File || known.Large != 0 && p.files.Large != known.Large {
		return false
	}
	return p.blank || away && p.files.Space == known.Space
}

const partitionsKey = "parts/"

func partitionsState(root uint32, files map[uint32]partitionFiles) dataflow.StateChange {
	c := dataflow.StateChange{Key: partitionsKey + strconv.FormatUint(uint64(root), 10)}
	if files == nil {
		return c
	}
	v, err := json.Marshal(files)
	if err != nil {
		panic(err) // numbers
	}
	c.Value = v
	return c
}

func restorePartitions(state dataflow.State) (map[uint32]map[uint32]partitionFiles, error) {
	roots := map[uint32]map[uint32]partitionFiles{}
	for key, value := range state {
		if !strings.HasPrefix(key, partitionsKey) {
			continue
		}
		oid, ok := StateTable(key)
		var files map[uint32]partitionFiles
		if err := json.Unmarshal(value, &files); err != nil || !ok {
			return nil, errs.New(errs.StateCorrupt, "stored partitions %q", key)
		}
		roots[oid] = files
	}
	return roots, nil
}

// partitions reads the leaves of all partitioned tables, without a lock. Nil before 13, where they are tables of their own.
func (s *Source) partitions(ctx context.Context, conn pg.Querier) ([]partition, error) {
	if s.version < 130000 {
		return nil, nil
	}
	return readPartitions(ctx, conn)
}

func readPartitions(ctx context.Context, conn pg.Querier) ([]partition, error) {
	// -1 rows means that nobody has counted since 14, and before there were 0 then.
	rows, err := conn.Query(ctx, `SELECT coalesce(pg_partition_root(c.oid)::oid, 0::oid)::int8, c.oid::int8, c.relfilenode::int8, c.reltoastrelid::int8, c.reltablespace::int8,
			c.relpages = 0 AND c.reltuples = CASE WHEN current_setting('server_version_num')::int < 140000 THEN 0 ELSE -1 END,
			c.xmin::text::int8, coalesce((SELECT i.xmin <> y.xmin FROM pg_inherits i, pg_type y WHERE i.inhrelid = c.oid AND y.oid = c.reltype LIMIT 1), false)
		FROM pg_class c WHERE c.relispartition AND c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY c.oid`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p partition, err error) {
		var root, oid, file, large, space, writer int64
		err = row.Scan(&root, &oid, &file, &large, &space, &p.blank, &writer, &p.attached)
		p.root, p.oid, p.writer = uint32(root), uint32(oid), uint32(writer)
		p.files = partitionFiles{File: uint32(file), Large: uint32(large), Space: uint32(space)}
		return p, err
	})
}

// TruncatedLater is for a target that refuses rows because it still has others of their key: those of a partition that was
// truncated, detached or dropped before they came again. meant names the tables that it may be about. It gives what has to be
// stored for a Source that does not run, so that such tables are copied at its next start (see RefreshLater); nothing if
// no partition was.
func TruncatedLater(ctx context.Context, source pg.Querier, state dataflow.State, meant func(pg.TargetName) bool, follow bool) ([]dataflow.StateChange, error) {
	known, err := restorePartitions(state)
	if err != nil || len(known) == 0 {
		return nil, err
	}
	shapes, err := loadShapes(state)
	if err != nil {
		return nil, err
	}
	parts, err := readPartitions(ctx, source)
	if err != nil {
		return nil, err
	}
	files := filesOf(parts)
	var changes []dataflow.StateChange
	for _, root := range slices.Sorted(maps.Keys(known)) {
		if shapes[root] == nil || !meant(shapes[root].name()) {
			continue
		}
		changed := slices.ContainsFunc(parts, func(p partition) bool {
			before, was := known[root][p.oid]
			return p.root == root && (!was && p.attached || was && p.truncated(before, true))
		})
		for oid := range known[root] { // one that was detached or dropped leaves its rows, too
			_, there := files[root][oid]
			changed = changed || !there
		}
		if !changed {
			continue
		}
		again, err := RefreshLater(state, []string{selection.Quote(shapes[root].name())}, follow)
		if err != nil {
			return nil, err
		}
		changes = append(append(changes, again...), partitionsState(root, files[root]))
	}
	return changes, nil
}

// filesOf are the files of each root's partitions.
func filesOf(parts []partition) map[uint32]map[uint32]partitionFiles {
	files := map[uint32]map[uint32]partitionFiles{}
	for _, p := range parts {
		if files[p.root] == nil {
			files[p.root] = map[uint32]partitionFiles{}
		}
		files[p.root][p.oid] = p.files
	}
	return files
}

// partitionLook is a look that found changes of a table's partitions. It is judged when the stream has passed where the log
// stood then: a TRUNCATE of the whole table may have been on its way.
type partitionLook struct {
	due   pg.LSN
	parts []partition
	away  bool
}

// followPartitions compares a look at the partitions with the one before.
func (s *Source) followPartitions(parts []partition) error {
	away := !s.watching
	s.watching = true
	var state []dataflow.StateChange
	for _, root := range slices.Sorted(maps.Keys(s.parts)) {
		if s.tables[root] == nil && s.copies[root] == nil {
			delete(s.parts, root)
			delete(s.partsDue, root)
			state = append(state, partitionsState(root, nil))
		}
	}
	now := filesOf(parts)
	var again []uint32
	for _, root := range slices.Sorted(maps.Keys(now)) {
		if s.tables[root] == nil && s.copies[root] == nil {
			continue
		}
		look, files := partitionLook{parts: parts, away: away}, now[root]
		if earlier, ok := s.partsDue[root]; ok {
			look, files = earlier, filesOf(earlier.parts)[root]
		}
		if known, ok := s.parts[root]; ok && maps.Equal(known, files) {
			continue
		}
		if s.unlogged(root, look, nil) != "" {
			if look.due == 0 {
				var end string
				err := s.ctl.QueryRow(s.ctx, "SELECT "+s.walNow()).Scan(&end)
				if err == nil {
					look.due, err = pg.ParseLSN(end)
				}
				if err != nil {
					return s.lost(err)
				}
				s.partsDue[root] = look
			}
			s.lookAgain.Store(true) // and what came since is judged then, too
			if s.reader.position < look.due {
				continue
			}
			delete(s.partsDue, root)
			if why := s.unlogged(root, look, s.reader.emptied); why != "" && s.tables[root] != nil {
				s.env.Log.Warn("a partitioned table is copied again: "+why+", of which the log says nothing", "table", pg.DottedName(s.tables[root].Schema, s.tables[root].Name))
				again = append(again, root)
			}
		}
		s.parts[root] = files
		state = append(state, partitionsState(root, files))
	}
	if len(again) > 0 {
		if _, err := s.copyAgain(again); err != nil { // noted before what is known now: a crash between the two does it again
			return err
		}
	}
	if len(state) == 0 {
		return nil
	}
	if err := s.reader.flush(); err != nil {
		return err
	}
	return s.send(dataflow.Message{Kind: dataflow.KindMark, Boundary: true, State: append(positionState(s.reader.position), state...)})
}

// unlogged tells what happened to a table's partitions that the log does not say; "" for nothing. logged are the latest
// transactions that truncated a whole table.
func (s *Source) unlogged(root uint32, look partitionLook, logged map[uint32]uint32) string {
	known, seen := s.parts[root]
	if !seen {
		return ""
	}
	for _, p := range look.parts {
		if p.root != root {
			continue
		}
		files, was := known[p.oid]
		switch {
		case !was && p.attached:
			return "a table became a partition of it, perhaps with rows"
		case was && p.truncated(files, look.away) && logged[root] != p.writer:
			return "a partition of it was truncated by itself"
		}
	}
	return ""
}
