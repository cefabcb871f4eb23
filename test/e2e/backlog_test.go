package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestBacklog changes shapes of a few tables many times over while weir is away, with few names for columns and several
// types, so that the catalog that it comes back to has little in common with what it reads in the log.
func TestBacklog(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay with -args -seed %d", seed)
	rounds := 3
	if *soakFlag {
		rounds = 60
	}
	for i := range uint64(rounds) {
		t.Run(fmt.Sprint(seed+i), func(t *testing.T) {
			b := &backlog{rng: rand.New(rand.NewPCG(seed+i, 3))}
			for range 4 {
				b.create()
			}
			before, rest := b.transactions(30), b.transactions(160)
			for _, x := range b.tables { // a change of shape is told by the next row
				b.insert(x, 1)
				rest = append(rest, b.sql...)
				b.sql = nil
			}
			src, dst := pair(t, 15, 15)
			src.exec(t, before...)
			m := newMirror(t, src, dst, "public.*", "--log-level", "info", "--set", "on.missing.row=error", "--set", fmt.Sprintf("sink.lanes=%d", 1+(seed+i)%2))
			m.start()
			m.caughtUp()
			m.kill()
			src.exec(t, rest...)
			m.start()
			m.caughtUp()
			requireEqual(t, src, dst)
			requireConsistent(t, m)
		})
	}
}

// backlog makes up transactions; what it knows of its tables is what they leave.
type backlog struct {
	rng    *rand.Rand
	tables []*backlogTable
	sql    []string // of the transaction at hand
	made   int      // for new names
}

type backlogTable struct {
	name    string
	next    int
	columns []backlogColumn // besides id
}

type backlogColumn struct{ name, typ, value string }

var backlogTypes = [][2]string{{"int", "1"}, {"text", "'x'"}, {"bigint", "7"}, {"numeric(10,2)", "2.5"}, {"timestamptz", "'2026-01-01'"}, {"boolean", "true"}}

func (b *backlog) add(format string, args ...any) {
	b.sql = append(b.sql, fmt.Sprintf(format, args...))
}

func (b *backlog) create() {
	b.made++
	x := &backlogTable{name: fmt.Sprintf("t%d", b.made)}
	b.add("CREATE TABLE %s(id int PRIMARY KEY)", x.name)
	b.tables = append(b.tables, x)
	b.addColumn(x)
	b.addColumn(x)
}

// name is one of a few; another column, or another table's, may have had it.
func (b *backlog) name(x *backlogTable) (name string, free bool) {
	name = fmt.Sprintf("k%d", b.rng.IntN(6))
	return name, !slices.ContainsFunc(x.columns, func(c backlogColumn) bool { return c.name == name })
}

func (b *backlog) addColumn(x *backlogTable) {
	name, free := b.name(x)
	if !free {
		return
	}
	typ := backlogTypes[b.rng.IntN(len(backlogTypes))]
	with := []string{"", "", " DEFAULT " + typ[1], " NOT NULL DEFAULT " + typ[1]}[b.rng.IntN(4)]
	b.add("ALTER TABLE %s ADD %s %s%s", x.name, name, typ[0], with)
	x.columns = append(x.columns, backlogColumn{name, typ[0], typ[1]})
}

func (b *backlog) insert(x *backlogTable, n int) {
	names, values := "id", "i"
	for _, c := range x.columns {
		names, values = names+", "+c.name, values+", "+c.value
	}
	b.add("INSERT INTO %s(%s) SELECT %s FROM generate_series(%d, %d) i", x.name, names, values, x.next, x.next+n-1)
	x.next += n
}

func (b *backlog) write(x *backlogTable) {
	for range 1 + b.rng.IntN(4) {
		switch b.rng.IntN(6) {
		case 0, 1:
			b.insert(x, 1+b.rng.IntN(20))
		case 2, 3:
			if len(x.columns) > 0 {
				c := x.columns[b.rng.IntN(len(x.columns))]
				b.add("UPDATE %s SET %s = %s WHERE id %% %d = 0", x.name, c.name, c.value, 2+b.rng.IntN(8))
			}
		case 4:
			b.add("DELETE FROM %s WHERE id %% %d = 1", x.name, 3+b.rng.IntN(10))
		default:
			b.add("UPDATE %s SET id = %d WHERE id = (SELECT max(id) FROM %[1]s)", x.name, x.next)
			x.next++
		}
	}
}

func (b *backlog) alter(x *backlogTable) {
	at := 0
	if len(x.columns) > 0 {
		at = b.rng.IntN(len(x.columns))
	}
	switch k := b.rng.IntN(14); {
	case k < 4 || len(x.columns) == 0:
		b.addColumn(x)
	case k < 7:
		b.add("ALTER TABLE %s DROP %s", x.name, x.columns[at].name)
		x.columns = slices.Delete(x.columns, at, at+1)
	case k < 9:
		if name, free := b.name(x); free {
			b.add("ALTER TABLE %s RENAME %s TO %s", x.name, x.columns[at].name, name)
			x.columns[at].name = name
		}
	case k < 11:
		c := &x.columns[at]
		b.add("ALTER TABLE %s ALTER %s DROP DEFAULT, ALTER %[2]s TYPE text", x.name, c.name)
		c.typ, c.value = "text", "'t'"
	case k == 11:
		b.add("TRUNCATE %s", x.name)
	case k == 12:
		b.made++
		name := fmt.Sprintf("t%d", b.made)
		b.add("ALTER TABLE %s RENAME TO %s", x.name, name)
		x.name = name
	default: // another table of its name
		b.add("DROP TABLE %s", x.name)
		b.add("CREATE TABLE %s(id int PRIMARY KEY)", x.name)
		x.columns, x.next = nil, 0
		b.addColumn(x)
		b.addColumn(x)
	}
}

// transactions makes up n of them.
func (b *backlog) transactions(n int) (sql []string) {
	for range n {
		for range 1 + b.rng.IntN(3) {
			x := b.tables[b.rng.IntN(len(b.tables))]
			b.write(x)
			if b.rng.IntN(2) == 0 {
				b.alter(x)
				if b.rng.IntN(5) > 0 {
					b.write(x)
				}
			}
		}
		sql = append(sql, "BEGIN; "+strings.Join(b.sql, "; ")+"; COMMIT")
		b.sql = nil
	}
	return sql
}
