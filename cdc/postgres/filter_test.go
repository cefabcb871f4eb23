package postgres

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/changelog"
)

// A historyTx writes a table of keys and values.
type historyTx struct {
	xid uint32
	ops []historyOp
}

type historyOp struct {
	truncate bool
	key, to  int64 // to: of an update; what does not exist is not changed
	value    int   // 0 deletes
}

func (tx *historyTx) apply(rows map[int64]int) {
	for _, op := range tx.ops {
		_, there := rows[op.key]
		switch {
		case op.truncate:
			clear(rows)
		case op.value == 0:
			delete(rows, op.key)
		case there && op.to != op.key:
			if _, taken := rows[op.to]; !taken {
				delete(rows, op.key)
				rows[op.to] = op.value
			}
		default:
			rows[op.key] = op.value
		}
	}
}

// TestFilterAgainstNaive copies a table in chunks beside a stream that is behind them, over random histories: what arrives
// is what the source ends with, whatever was truncated between the chunks.
func TestFilterAgainstNaive(t *testing.T) {
	for seed := range uint64(20_000) {
		if got, want, f := copyBeside(rand.New(rand.NewPCG(seed, 1))); !maps.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v, filter %+v", seed, got, want, f)
		}
	}
}

func copyBeside(rng *rand.Rand) (got, want map[int64]int, f *tableFilter) {
	const keys = 12
	txs := make([]historyTx, 3+rng.IntN(12)) // in the order of their commits
	for i, xid := range rng.Perm(len(txs)) {
		txs[i].xid = uint32(100 + xid)
		for range 1 + rng.IntN(4) {
			op := historyOp{key: rng.Int64N(keys), value: rng.IntN(5), truncate: rng.IntN(8) == 0}
			op.to = op.key
			if rng.IntN(3) == 0 {
				op.to = rng.Int64N(keys)
			}
			txs[i].ops = append(txs[i].ops, op)
		}
	}
	after := func(commits int) map[int64]int {
		rows := map[int64]int{1: 1, 5: 1, 9: 1}
		for i := range commits {
			txs[i].apply(rows)
		}
		return rows
	}
	first := rng.IntN(2) == 0
	got = map[int64]int{}
	if !first {
		got = after(0)
	}
	f = &tableFilter{num: 1, open: true, first: first}
	for streamed, viewed := 0, 0; streamed < len(txs) || f.open; {
		if f.open && (streamed == len(txs) || rng.IntN(3) == 0) {
			viewed = max(viewed, streamed)
			viewed += rng.IntN(len(txs) - viewed + 1)
			var after64 *int64
			if n := len(f.ranges); n > 0 {
				after64 = f.ranges[n-1].through
			}
			part := keyRange{after: after64}
			if k := rng.Int64N(keys); len(f.ranges) < 4 && (after64 == nil || k > *after64) {
				part.through = &k
			}
			clearPart(got, part)
			for k, v := range after(viewed) {
				if part.holds(k) {
					got[k] = v
				}
			}
			f.ranges = append(f.ranges, filterRange{through: part.through, view: viewOf(txs, viewed)})
			f.open = part.through != nil
			continue
		}
		bring(f, &txs[streamed], after(streamed), got)
		streamed++
	}
	return got, after(len(txs)), f
}

func (k keyRange) holds(key int64) bool {
	return (k.after == nil || key > *k.after) && (k.through == nil || key <= *k.through)
}

func clearPart(rows map[int64]int, part keyRange) {
	maps.DeleteFunc(rows, func(k int64, _ int) bool { return part.holds(k) })
}

// viewOf is what a session sees when so many transactions have committed.
func viewOf(txs []historyTx, commits int) *snapshot.View {
	v := &snapshot.View{Xmin: 100, Xmax: 100}
	for _, tx := range txs[:commits] {
		v.Xmax = max(v.Xmax, uint64(tx.xid)+1)
	}
	for _, tx := range txs[commits:] {
		if uint64(tx.xid) < v.Xmax {
			v.Running = append(v.Running, uint64(tx.xid))
		}
	}
	slices.Sort(v.Running)
	if v.Xmin = v.Xmax; len(v.Running) > 0 {
		v.Xmin = v.Running[0]
	}
	return v
}

// bring takes a transaction to the target through the filter, as the reader does; source is the table before it.
func bring(f *tableFilter, tx *historyTx, source, target map[int64]int) {
	drop := func(key int64) bool {
		s := strconv.FormatInt(key, 10)
		img := append([]byte{0, 1, changelog.ValueText, 0, 0, 0, byte(len(s))}, s...)
		dropped, err := f.drop(tx.xid, img)
		if err != nil {
			panic(fmt.Sprint("a key was not found: ", err))
		}
		return dropped
	}
	for _, op := range tx.ops {
		before := maps.Clone(source)
		(&historyTx{ops: []historyOp{op}}).apply(source)
		if op.truncate {
			whole, _, rest := f.emptied(tx.xid)
			if whole {
				clear(target)
			}
			for _, part := range rest {
				clearPart(target, part)
			}
			continue
		}
		for k := range before {
			if _, still := source[k]; !still && !drop(k) {
				require(target, k, true)
				delete(target, k)
			}
		}
		for k, v := range source {
			if old, was := before[k]; old != v && !drop(k) {
				require(target, k, was)
				target[k] = v
			}
		}
	}
}

// require has a row be there, or not, as an update, a delete or an insert expects it.
func require(target map[int64]int, key int64, there bool) {
	if _, is := target[key]; is != there {
		panic(fmt.Sprintf("key %d at the target: %v, want %v", key, is, there))
	}
}

// TestFilterFollowsKey: the key moves among the columns when others go.
func TestFilterFollowsKey(t *testing.T) {
	f := &tableFilter{num: 2, key: 1}
	for _, c := range []struct {
		shape *tableShape
		found bool
		key   int
	}{
		{shape(col(1, "a", 25), col(2, "id", 23)), true, 1},
		{shape(col(2, "id", 23), col(3, "b", 25)), true, 0},
		{shape(col(2, "key", 20), col(3, "b", 25)), true, 0},
		{shape(col(2, "id", 25), col(3, "b", 25)), false, -1},
		{shape(col(3, "id", 23)), false, -1},
	} {
		if found := f.follow(c.shape); found != c.found || f.key != c.key {
			t.Errorf("%v: %v, column %d, want %v, column %d", c.shape.Columns, found, f.key, c.found, c.key)
		}
	}
	whole := &tableFilter{}
	if !whole.follow(shape(col(3, "id", 25))) {
		t.Error("a copy without a key needs none")
	}
}
