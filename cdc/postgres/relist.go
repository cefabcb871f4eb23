package postgres

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// Somebody may take a table out of the publication, or stop it from sending what is updated. The server says nothing, and
// rows that are written meanwhile never come. So each look at the catalog also looks there, and the table is copied again.
//
// The copy is noted first, and the publication mended when the note is durable: as long as it is not, a crash finds the
// publication as it was, and the same way open again. The next start is no exception: a table that is known and not
// published is left to the first look.

// listing is what the publication sends.
type listing struct {
	changes bool              // all kinds of them
	whole   bool              // every table
	tables  map[uint32]bool   // else these
	filters map[uint32]string // the rows of them, as a publication of the user has it
}

func (l *listing) sends(oid uint32) bool { return l.changes && (l.whole || l.tables[oid]) }

func (l *listing) equal(m *listing) bool {
	return l != nil && m != nil && l.changes == m.changes && l.whole == m.whole && maps.Equal(l.tables, m.tables) && maps.Equal(l.filters, m.filters)
}

// listing reads the publication; nil: there is none, which the stream will say.
func (s *Source) listing(ctx context.Context, conn pg.Querier) (*listing, error) {
	l := &listing{tables: map[uint32]bool{}, filters: map[uint32]string{}}
	err := conn.QueryRow(ctx, `SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = $1`,
		s.opts.Publication).Scan(&l.whole, &l.changes)
	if err == pgx.ErrNoRows {
		return nil, nil
	}
	if err != nil || l.whole {
		return l, err
	}
	sql := `SELECT prrelid::int8, '' FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1`
	if s.opts.KeepPublication { // which may be of schemas
		sql = `SELECT c.oid::int8, coalesce(to_jsonb(t) ->> 'rowfilter', '') FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
			JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename WHERE t.pubname = $1`
	}
	rows, err := conn.Query(ctx, sql, s.opts.Publication)
	if err != nil {
		return nil, err
	}
	var oid int64
	var filter string
	_, err = pgx.ForEachRow(rows, []any{&oid, &filter}, func() error {
		l.tables[uint32(oid)] = true
		if filter != "" {
			l.filters[uint32(oid)] = filter
		}
		return nil
	})
	return l, err
}

// refilter compares a publication of the user with the mirror again where it sends other rows of a table than before.
func (s *Source) refilter(seen *listing) error {
	before := s.sending
	s.sending = seen
	if before == nil {
		return nil // the start has compared them
	}
	var changed []uint32
	for _, oid := range slices.Sorted(maps.Keys(s.tables)) {
		if before.tables[oid] && seen.tables[oid] && before.filters[oid] != seen.filters[oid] {
			changed = append(changed, oid)
		}
	}
	specs, err := s.present(changed)
	if len(specs) == 0 || err != nil {
		return err
	}
	return s.covered(s.ctx, specs, false)
}

// relist takes note of tables that are not published any more, and mends that.
func (s *Source) relist(seen *listing) error {
	if seen == nil {
		return nil
	}
	if s.opts.KeepPublication && seen.changes {
		if err := s.refilter(seen); err != nil {
			return err
		}
	}
	missing := func(l *listing) (oids []uint32) {
		for _, oid := range slices.Sorted(maps.Keys(s.tables)) {
			if !l.sends(oid) {
				oids = append(oids, oid)
			}
		}
		return oids
	}
	if len(missing(seen)) == 0 && len(s.unlisted) == 0 {
		return nil
	}
	now, err := s.listing(s.ctx, s.ctl) // the look may be older than a change of ours
	if err != nil {
		return s.lost(err)
	}
	if now == nil {
		return nil
	}
	var fresh, back []uint32
	for _, oid := range missing(now) {
		if !s.unlisted[oid] {
			s.env.Log.Warn("the publication does not send a table any more; it is copied again", "publication", s.opts.Publication, "table", s.tables[oid].name().String())
			s.unlisted[oid] = true
			fresh = append(fresh, oid)
		}
	}
	if len(fresh) > 0 {
		s.notes.forget(fresh)
		if _, err := s.copyAgain(fresh); err != nil {
			return err
		}
	}
	for _, oid := range slices.Sorted(maps.Keys(s.unlisted)) {
		switch {
		case s.tables[oid] == nil:
			delete(s.unlisted, oid)
		case now.sends(oid):
			back = append(back, oid)
		case !s.opts.KeepPublication && s.notes.has(oid):
			mended, err := s.publishAgain(oid, now)
			if err != nil {
				return err
			}
			if mended {
				back = append(back, oid)
			}
		}
	}
	if len(back) > 0 {
		if err := s.learnPublished(s.ctx); err != nil {
			return err
		}
		floor, err := s.horizon()
		if err != nil {
			return err
		}
		for _, oid := range back {
			delete(s.unlisted, oid)
			if c := s.copies[oid]; c != nil {
				c.Floor = max(c.Floor, floor)
			}
		}
		s.copying.Store(true)
	}
	if len(s.unlisted) > 0 {
		s.lookAgain.Store(true)
	}
	return nil
}

// publishAgain puts a table back into weir's own publication. False: not now.
func (s *Source) publishAgain(oid uint32, now *listing) (bool, error) {
	specs, err := s.present([]uint32{oid})
	if len(specs) == 0 || err != nil {
		return false, err
	}
	var sql []string
	name := pg.Ident(s.opts.Publication)
	if !now.changes {
		sql = append(sql, "ALTER PUBLICATION "+name+" SET (publish = 'insert, update, delete, truncate')")
	}
	if !now.whole && !now.tables[oid] {
		item, err := s.publishAnew(specs[0])
		if err != nil {
			return false, err
		}
		sql = append(sql, "ALTER PUBLICATION "+name+" ADD TABLE "+item)
	}
	fix := strings.Join(sql, "; ")
	err = s.changePublication(s.ctx, fix, []uint32{oid}, true)
	if err == errTableGone {
		return false, nil
	}
	if err != nil {
		return false, errs.New(errs.PublicationMissing, "put %s back into publication %q: %w", specs[0], s.opts.Publication, err).Because(err).WithFix(fix + ";")
	}
	return true, nil
}

// notes are the copies that are known to be noted durably. The target's acknowledgements tell, on another goroutine.
type notes struct {
	mu     sync.Mutex
	tables map[uint32]bool
	over   map[uint32]bool // copies of these have ended
}

func (n *notes) durable(c dataflow.StateChange) {
	if !strings.HasPrefix(c.Key, liveCopyKey) {
		return
	}
	if oid, ok := StateTable(c.Key); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.tables == nil {
			n.tables, n.over = map[uint32]bool{}, map[uint32]bool{}
		}
		if c.Value != nil {
			n.tables[oid] = true
		} else {
			n.over[oid] = true
		}
	}
}

func (n *notes) has(oid uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.tables[oid]
}

// hasAll tells whether all of these copies are noted, or over by now.
func (n *notes) hasAll(oids *[]uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return oids == nil || !slices.ContainsFunc(*oids, func(oid uint32) bool { return !n.tables[oid] && !n.over[oid] })
}

func (n *notes) forget(oids []uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, oid := range oids {
		delete(n.tables, oid)
		delete(n.over, oid)
	}
}
