package disk

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/weirstream/weir/engine/row"
	"github.com/weirstream/weir/engine/state"
)

// numbers is a task with bags of numbers.
type numbers struct {
	t    *testing.T
	s    *state.Store
	bags map[string]*state.Bag
	key  *row.KeyCodec
}

func newNumbers(t *testing.T, p *Pipeline, names ...string) *numbers {
	s, err := state.New(state.Options{Groups: 16, Backing: p.Backing()})
	must(t, err)
	t.Cleanup(s.Close)
	n := &numbers{t: t, s: s, bags: map[string]*state.Bag{}, key: row.GroupKey([]row.Type{{Kind: row.BigInt, NotNull: true}})}
	for _, name := range names {
		n.bags[name], err = s.Bag(name, n.key, true)
		must(t, err)
	}
	return n
}

func (n *numbers) add(name string, from, to int64, r string) {
	b := row.NewBuilder([]row.Type{{Kind: row.BigInt, NotNull: true}})
	for i := from; i < to; i++ {
		b.Reset()
		b.Cols[0].Int64 = append(b.Cols[0].Int64, i)
		b.EndRow(1)
		batch := b.Seal()
		var keys row.Keys
		n.key.Hash(&keys, batch, []int{0})
		refs := make([]state.Ref, 1)
		must(n.t, n.bags[name].Keys().FindOrAdd(&keys, batch, refs))
		must(n.t, n.bags[name].Add(refs[0], keys.Hash[0], fmt.Appendf(nil, "%s %d", r, i), 1))
	}
}

func (n *numbers) checkpoint(p *Pipeline, c uint64) {
	n.t.Helper()
	d := &state.Delta{}
	n.s.TakeDelta(d, c)
	d.Sort()
	_, err := p.Prepare(context.Background(), c, []*state.Delta{d}, nil, nil)
	must(n.t, err)
	p.Commit(c)
	must(n.t, p.settle())
}

// kept counts the rows that lie below memory, by what they begin with.
func (n *numbers) kept(name string) string {
	n.t.Helper()
	counts := map[string]int64{}
	must(n.t, n.bags[name].Kept(0, 1<<16, func(r []byte, w int64) error {
		of, _, _ := strings.Cut(string(r), " ")
		counts[of] += w
		return nil
	}))
	return fmt.Sprint(counts)
}

// TestForget: a state that is forgotten is gone for good, also when the node ends at once, and one that gets its number
// and its name later finds nothing of it. The others stay.
func TestForget(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs, Options{})
	p, _ := pipeline(t, d, "orders", 0)
	n := newNumbers(t, p, "stays", "goes")
	n.add("stays", 0, 300, "old")
	n.add("goes", 0, 300, "old")
	n.checkpoint(p, 1)
	if got := n.kept("goes"); got != "map[old:300]" {
		t.Fatalf("it has %s", got)
	}
	_, err := p.Recover(1)
	must(t, err)
	gone, err := p.Forget(func(name string) bool { return name == "stays" })
	must(t, err)
	if gone != 1 {
		t.Errorf("%d states were forgotten", gone)
	}
	_, err = p.Recover(1)
	must(t, err)
	n = newNumbers(t, p, "stays", "another", "goes")
	n.add("another", 100, 400, "new")
	n.checkpoint(p, 2)
	check := func() {
		t.Helper()
		for name, want := range map[string]string{"stays": "map[old:300]", "another": "map[new:300]", "goes": "map[]"} {
			if got := n.kept(name); got != want {
				t.Errorf("%s has %s, want %s", name, got, want)
			}
		}
	}
	check()
	crashed := fs.CrashClone(vfs.CrashCloneCfg{})
	_ = d.Close()
	d = open(t, crashed, Options{})
	defer d.Close()
	p, _ = pipeline(t, d, "orders", 2)
	n = newNumbers(t, p, "stays", "another", "goes")
	check()
	// Rows that come and go are netted over checkpoints.
	n.add("another", 100, 200, "new")
	n.checkpoint(p, 3)
	if got := n.kept("another"); got != "map[new:400]" {
		t.Errorf("another has %s", got)
	}
}
