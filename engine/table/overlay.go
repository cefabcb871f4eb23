package table

// overlay is what was accepted of a table and lies over the epochs that are read.
type overlay struct {
	rows map[string][]version // by key, rising
	last uint64               // the last transaction that changed the table
}

// version is what a transaction made of a key: of a table with a primary key its row, nil if there is none any more; of
// one without, by how much it changed the number of that row.
type version struct {
	seq   uint64
	row   []byte
	delta int64
}

// at is the row of a key as of a transaction. Known is false where the epoch below says it.
func at(vs []version, seq uint64) (r []byte, known bool) {
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].seq <= seq {
			return vs[i].row, true
		}
	}
	return nil, false
}

// sum is by how much the number of a row differs between an epoch that has the transactions up to base and seq.
func sum(vs []version, base, seq uint64) int64 {
	n := int64(0)
	for _, v := range vs {
		if v.seq > base && v.seq <= seq {
			n += v.delta
		}
	}
	return n
}

// put adds the changes of a transaction. The caller has locked.
func (s *Sequencer) put(t *table, seq uint64, key string, v version) {
	v.seq = seq
	o := &s.mu.over[t.number]
	o.rows[key] = append(o.rows[key], v)
	o.last = seq
	bytes := int64(len(key)+len(v.row)) + versionBytes
	s.mu.bytes += bytes
	s.mu.trail = append(s.mu.trail, step{seq, t.number, key, bytes})
}

// versionBytes is about what a version takes besides its key and row.
const versionBytes = 200

// prune drops what every epoch that is read has. The caller has locked.
func (s *Sequencer) prune() {
	bound := s.mu.durable // what is not, nobody can have pinned
	for tx := range s.mu.open {
		if !tx.dead {
			bound = min(bound, tx.base)
		}
	}
	s.mu.pruned = max(s.mu.pruned, bound)
	n := 0
	for ; n < len(s.mu.trail) && s.mu.trail[n].seq <= bound; n++ {
		x := &s.mu.trail[n]
		rows := s.mu.over[x.table].rows
		if vs := rows[x.key]; len(vs) > 1 {
			rows[x.key] = vs[1:]
		} else {
			delete(rows, x.key)
		}
		s.mu.bytes -= x.bytes
		x.key = ""
	}
	s.mu.trail = s.mu.trail[n:]
	if len(s.mu.trail) == 0 {
		s.mu.trail = nil
	}
	// An epoch is kept while a transaction may begin at it: who has pinned one and not begun yet is told to pin again.
	for len(s.mu.epochs) > 1 && s.mu.epochs[1].seq <= bound {
		s.mu.epochs = s.mu.epochs[1:]
	}
}

// seqAt is the last transaction that an epoch has. The caller has locked.
func (s *Sequencer) seqAt(n uint64) uint64 {
	for i := len(s.mu.epochs) - 1; i >= 0; i-- {
		if s.mu.epochs[i].n <= n {
			return s.mu.epochs[i].seq
		}
	}
	return 0
}
