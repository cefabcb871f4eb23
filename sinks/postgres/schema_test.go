package postgres

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirstream/weir/engine/changelog"
)

// TestUntangle: columns that drop, rename and add take each other's names over random changes; done one after the other,
// as a server does, no step meets a name that is taken or not there, and every column ends with its own.
func TestUntangle(t *testing.T) {
	for seed := range uint64(5000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		names := []string{"a", "b", "c", "d", "e", "aside_1", "aside_2"}
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		n := 1 + rng.IntN(5)
		now := map[string]int{} // name: which column
		for i, name := range names[:n] {
			now[name] = i
		}
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		var drops, renames, adds []changelog.SchemaStep
		want := map[string]int{}
		next := 0
		for _, name := range slices.Sorted(maps.Keys(now)) {
			column := now[name]
			switch rng.IntN(4) {
			case 0:
				drops = append(drops, changelog.SchemaStep{Kind: changelog.DropColumn, Column: name})
			default:
				if names[next] != name {
					renames = append(renames, changelog.SchemaStep{Kind: changelog.RenameColumn, Column: name, NewName: names[next]})
				}
				want[names[next]] = column
				next++
			}
		}
		for i := range rng.IntN(len(names) - next + 1) {
			adds = append(adds, changelog.SchemaStep{Kind: changelog.AddColumn, Column: names[next+i]})
			want[names[next+i]] = 100 + i
		}
		there := func(name string) bool { _, ok := now[name]; return ok }
		steps := untangle(append(append(drops, renames...), adds...), there)
		added := 100
		for i, s := range steps {
			at := fmt.Sprintf("seed %d, step %d of %v", seed, i, steps)
			if s.Kind != changelog.AddColumn && !there(s.Column) {
				t.Fatalf("%s: %s is not there", at, s.Column)
			}
			switch s.Kind {
			case changelog.DropColumn:
				delete(now, s.Column)
			case changelog.RenameColumn:
				if there(s.NewName) {
					t.Fatalf("%s: %s is taken", at, s.NewName)
				}
				now[s.NewName] = now[s.Column]
				delete(now, s.Column)
			case changelog.AddColumn:
				if there(s.Column) {
					t.Fatalf("%s: %s is taken", at, s.Column)
				}
				now[s.Column] = added
				added++
			}
		}
		if !maps.Equal(now, want) {
			t.Fatalf("seed %d: %v, want %v, by %v", seed, now, want, steps)
		}
	}
}
