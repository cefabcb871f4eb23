package postgres

import (
	"slices"
	"strconv"

	"github.com/weirstream/weir/cdc/postgres/selection"
	"github.com/weirstream/weir/engine/dataflow"
	"github.com/weirstream/weir/internal/api"
)

// ForgetLater is for tables that patterns take out of a mirror while its Source does not run: what has to be stored so that
// nothing is known of them any more, and their OIDs. One that is selected again before a Source has looked joins anew then,
// as one does that was let go, whatever has become of its table at the target. Patterns that match no known table forget
// nothing. Before the first copy is complete nothing is forgotten: it copies what is selected when it goes on.
func ForgetLater(state dataflow.State, patterns []string) (changes []dataflow.StateChange, oids []uint32, err error) {
	if state[liveKey] == nil || len(patterns) == 0 {
		return nil, nil, nil
	}
	shapes, err := loadShapes(state)
	if err != nil {
		return nil, nil, err
	}
	rest, err := selection.New(api.MirrorSpec{Except: patterns})
	if err != nil {
		return nil, nil, err
	}
	var names []string
	for oid, t := range shapes {
		if !rest.Includes(t.Schema, t.Name) {
			oids, names = append(oids, oid), append(names, selection.Quote(t.name()))
		}
	}
	if len(oids) == 0 {
		return nil, nil, nil // without a name every table would be meant
	}
	if changes, err = RefreshLater(state, names, false); err != nil {
		return nil, nil, err
	}
	slices.Sort(oids)
	for _, oid := range oids {
		changes = append(changes, leftState(oid, nil), partitionsState(oid, nil),
			dataflow.StateChange{Key: aheadKey + strconv.FormatUint(uint64(oid), 10)})
	}
	return changes, oids, nil
}
