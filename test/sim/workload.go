package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/test/conform"
)

// workload is the users of the source. It knows what it wrote, so that every change is possible.
type workload struct {
	w       *world
	balance [12]int
	numbers map[int]int    // seq: id to n
	names   map[int]int    // slot of a sequence to the id it has now
	notes   map[int]string // by id
	bags    []conform.Row
	scratch map[string]bool
	bulk    int
	open    map[int]*openTx
}

type openTx struct {
	xid, sub uint32
}

const startBalance = 1000

func column(name string, key bool, typ string) conform.Column {
	return conform.Column{Name: name, Type: typ, Key: key}
}

// tables are what is mirrored. scratch has a key of two columns, which makes its copy one range: it is truncated.
func tables() []conform.Table {
	return []conform.Table{
		{Name: "acct_a", Columns: []conform.Column{column("id", true, conform.Int), column("balance", false, conform.Int)}},
		{Name: "acct_b", Columns: []conform.Column{column("id", true, conform.Int), column("balance", false, conform.Int)}},
		{Name: "seq", Columns: []conform.Column{column("id", true, conform.Int), column("n", false, conform.Int), column("note", false, conform.Text)}},
		{Name: "bag", Columns: []conform.Column{column("n", false, conform.Int), column("v", false, conform.Text)}},
		{Name: "scratch", Columns: []conform.Column{column("id", true, conform.Int), column("part", true, conform.Int), column("v", false, conform.Text)}},
		{Name: "bulk", Columns: []conform.Column{column("id", true, conform.Int), column("v", false, conform.Text)}},
	}
}

func newWorkload(w *world) *workload {
	l := &workload{w: w, numbers: map[int]int{}, names: map[int]int{}, notes: map[int]string{}, scratch: map[string]bool{}, open: map[int]*openTx{}}
	var seed []change
	for i := range l.balance {
		l.balance[i] = startBalance
		seed = append(seed, insertOf(account(i), itoa(i*10), itoa(startBalance)))
	}
	seed = append(seed, insertOf("acct_a", "-1", itoa(startBalance*len(l.balance))))
	for i := range 10 {
		l.names[i] = i * 10
		l.notes[i*10] = strings.Repeat("n", 20)
		seed = append(seed, insertOf("seq", itoa(i*10), "0", l.notes[i*10]))
	}
	for i := range 30 {
		l.bulk++
		seed = append(seed, insertOf("bulk", itoa(i*3), "seed"))
	}
	l.bulk = 1000
	l.bags = []conform.Row{{"1", "x"}, {"1", "x"}}
	seed = append(seed, insertOf("bag", "1", "x"), insertOf("bag", "1", "x"))
	l.commit(seed...)
	return l
}

func (l *workload) commit(changes ...change) {
	if err := l.w.src.commit(time.Now(), changes); err != nil {
		l.w.chk.wrong("workload: %v", err)
	}
}

// Accounts with an even number are in one table, the others in the other.
func account(i int) string {
	if i%2 == 0 {
		return "acct_a"
	}
	return "acct_b"
}

func (l *workload) pay(i, amount int) change {
	l.balance[i] += amount
	return updateOf(account(i), itoa(i*10), itoa(l.balance[i]))
}

func (l *workload) transfer(a, b, amount int) []change {
	return []change{l.pay(a, -amount), l.pay(b, amount)}
}

func (l *workload) inserts(n int) []change {
	var out []change
	for range n {
		l.bulk++
		out = append(out, insertOf("bulk", itoa(l.bulk), "b"+itoa(l.bulk)))
	}
	return out
}

// do carries out an action; false: it is not one of the users'.
func (l *workload) do(a Action) bool {
	switch a.Kind {
	case "transfer":
		l.commit(l.transfer(a.N[0], a.N[1], a.N[2])...)
	case "burst":
		for i := range a.N[0] {
			l.commit(l.transfer(i%8, (i+3)%8, 1)...)
		}
	case "sequence":
		id := l.names[a.N[0]]
		l.numbers[id]++
		note := conform.Unsent
		if a.N[1] == 0 {
			note = "note " + itoa(l.numbers[id])
			l.notes[id] = note
		}
		l.commit(updateOf("seq", itoa(id), itoa(l.numbers[id]), note))
	case "rename":
		old := l.names[a.N[0]]
		id := 100 - old // to the other range of the copy and back
		if old > 100 || id == old || l.taken(id) {
			id = old + 1000
		}
		if l.taken(id) {
			return true
		}
		l.names[a.N[0]], l.numbers[id], l.notes[id] = id, l.numbers[old]+1, l.notes[old]
		l.commit(change{table: "seq", op: changelog.Update, old: conform.Row{itoa(old), conform.Null, conform.Null}, new: conform.Row{itoa(id), itoa(l.numbers[id]), l.notes[id]}})
	case "bag":
		row := conform.Row{itoa(a.N[0]), "x"}
		if i := slices.IndexFunc(l.bags, func(r conform.Row) bool { return slices.Equal(r, row) }); i >= 0 && a.N[1] == 0 {
			l.bags = slices.Delete(l.bags, i, i+1)
			l.commit(change{table: "bag", op: changelog.Delete, old: row})
			return true
		}
		l.bags = append(l.bags, row)
		l.commit(insertOf("bag", row...))
	case "scratch":
		id := itoa(a.N[0])
		if l.scratch[id] {
			l.commit(append(l.transfer(0, 1, 1), updateOf("scratch", id, "0", "again"))...)
			return true
		}
		l.scratch[id] = true
		l.commit(append(l.transfer(2, 3, 1), insertOf("scratch", id, "0", "new"))...)
	case "truncate":
		clear(l.scratch)
		changes := append(l.transfer(1, 2, 1), truncateOf("scratch"))
		for i := range a.N[0] {
			l.scratch[itoa(i)] = true
			changes = append(changes, insertOf("scratch", itoa(i), "0", "behind the truncate"))
		}
		l.commit(changes...)
	case "huge":
		changes := []change{l.pay(a.N[1], -7)}
		changes = append(changes, l.inserts(a.N[0])...)
		l.commit(append(changes, l.pay(a.N[2], 7))...)
	case "open":
		// Accounts 8 and 9 to 11 belong to open transactions: nobody else waits for their locks.
		l.open[a.N[0]] = &openTx{xid: l.w.src.begin()}
	case "open-rows":
		x := l.open[a.N[0]]
		l.w.src.piece(x.xid, x.xid, l.inserts(a.N[1]))
		x.sub = 0
	case "open-sub":
		x := l.open[a.N[0]]
		x.sub = l.w.src.nextSub()
		l.w.src.piece(x.xid, x.sub, l.inserts(a.N[1]))
	case "open-rollback-to":
		if x := l.open[a.N[0]]; x.sub != 0 {
			l.w.src.rollbackTo(x.xid, x.sub)
			l.w.chk.sometimes("source: subtransaction rolled back")
		}
	case "open-rollback":
		l.w.src.rollback(l.open[a.N[0]].xid)
		l.w.chk.sometimes("source: open transaction rolled back")
	case "open-commit":
		x := l.open[a.N[0]]
		// One account of each open transaction is its own; what it takes there it gives to the next, which is its too.
		if len(l.open) == 1 || a.N[0] == 0 {
			l.w.src.piece(x.xid, x.xid, []change{l.pay(8, -5)})
			l.w.src.piece(x.xid, x.xid, []change{l.pay(9, 5)})
		}
		if err := l.w.src.commitOpen(time.Now(), x.xid); err != nil {
			l.w.chk.wrong("workload: %v", err)
		}
	default:
		return false
	}
	return true
}

func (l *workload) taken(id int) bool {
	for _, x := range l.names {
		if x == id {
			return true
		}
	}
	return false
}
