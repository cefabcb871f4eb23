package postgres

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/weirstream/weir/cdc/snapshot"
	"github.com/weirstream/weir/engine/changelog"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

// tableFilter stands between the stream and a table whose copy was not taken under the slot's own snapshot.
//
// The copy is a row of key ranges, each read under its own view. A change of a key is dropped when the range's view
// holds its transaction, because the copied row has it already. On a first copy, changes beyond the cursor are dropped
// as well: the range that is still to come will hold them.
type tableFilter struct {
	num     int16 // of the integer key's column in the catalog; 0: there is one range, the whole table
	key     int   // its place in the images
	ranges  []filterRange
	open    bool // ranges beyond the last one are still to be copied
	first   bool // and have no rows at the target that count
	standby bool
}

// filterRange holds keys up to through; nil is the end.
type filterRange struct {
	through *int64
	view    *snapshot.View // nil: the slot's own, which the stream continues
	high    pg.LSN         // once the stream is here, nothing is left that view could hold
}

// drop implements rowFilter.
func (f *tableFilter) drop(xid uint32, img changelog.Image) (bool, error) {
	i := 0
	if f.num != 0 {
		key, err := integerAt(img, f.key)
		if err == errNoKey && f.dropAll(xid) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		for i < len(f.ranges) && f.ranges[i].through != nil && key > *f.ranges[i].through {
			i++
		}
	}
	if i == len(f.ranges) {
		return f.open && f.first, nil
	}
	return f.ranges[i].sees(xid, f.standby), nil
}

func (r *filterRange) sees(xid uint32, standby bool) bool {
	return r.view != nil && r.view.Sees(xid, standby)
}

// dropAll implements rowFilter.
func (f *tableFilter) dropAll(xid uint32) bool {
	whole, _, rest := f.emptied(xid)
	return !whole && len(rest) == 0
}

// emptied implements rowFilter.
func (f *tableFilter) emptied(xid uint32) (whole bool, key int, rest []keyRange) {
	seen := false
	var after *int64
	for i := range f.ranges {
		r := &f.ranges[i]
		if r.sees(xid, f.standby) {
			seen = true
		} else {
			rest = append(rest, keyRange{after, r.through})
		}
		after = r.through
	}
	if f.open && !f.first {
		rest = append(rest, keyRange{after, nil})
	}
	if !seen && len(rest) > 0 {
		return true, 0, nil
	}
	return false, f.key, rest
}

// follow finds the key in another shape of the table. False: it is gone, and no change can be judged any more.
func (f *tableFilter) follow(shape *tableShape) bool {
	if f.num == 0 {
		return true
	}
	f.key = slices.IndexFunc(shape.Columns, func(c columnShape) bool { return c.Attnum == f.num && isInteger(c.TypeOID) })
	return f.key >= 0
}

// past forgets what the stream has left behind and tells whether nothing is left.
func (f *tableFilter) past(position pg.LSN) (empty bool) {
	for i := range f.ranges {
		if f.ranges[i].view != nil && f.ranges[i].high <= position {
			f.ranges[i].view = nil
		}
	}
	if f.open {
		return false
	}
	for i := range f.ranges {
		if f.ranges[i].view != nil {
			return false
		}
	}
	return true
}

// integerAt reads an integer column of an image.
func integerAt(img changelog.Image, col int) (int64, error) {
	it := img.Iter()
	for i := 0; ; i++ {
		kind, raw := it.Next()
		if kind == 0 {
			break
		}
		if i != col {
			continue
		}
		switch kind {
		case changelog.ValueText:
			return strconv.ParseInt(string(raw[4:]), 10, 64)
		case changelog.ValueBinary:
			switch v := raw[4:]; len(v) {
			case 2:
				return int64(int16(binary.BigEndian.Uint16(v))), nil
			case 4:
				return int64(int32(binary.BigEndian.Uint32(v))), nil
			case 8:
				return int64(binary.BigEndian.Uint64(v)), nil
			}
		}
		break
	}
	return 0, errNoKey
}

// errNoKey: the change names its row by other columns than those that bound the ranges. The table's identity has changed.
var errNoKey = errs.New(errs.SourceProtocol, "a change came without its integer key")
