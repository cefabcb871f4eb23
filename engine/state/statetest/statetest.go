// Package statetest has the durable half of state as a Go map, for the tests of what keeps state.
package statetest

import (
	"bytes"
	"encoding/binary"
	"sort"
	"strings"
	"testing"

	"github.com/weirstream/weir/engine/state"
)

// Backing is a state.Backing in sorted maps: what Pebble and the log are together.
type Backing struct {
	kv  map[string]map[string][]byte // by the beginning that the records of a state have for 16 bits of hash, then by key
	ids map[string]uint32
}

// prefixBytes is the length of that beginning.
const prefixBytes = 6

// New returns an empty Backing.
func New() *Backing {
	return &Backing{kv: map[string]map[string][]byte{}, ids: map[string]uint32{}}
}

// Empty is part of state.Backing.
func (f *Backing) Empty(id uint32) bool {
	for p, kv := range f.kv {
		if len(kv) > 0 && binary.BigEndian.Uint32([]byte(p)[2:]) == id {
			return false
		}
	}
	return true
}

// Get is part of state.Backing.
func (f *Backing) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := f.kv[string(key[:prefixBytes])][string(key)]
	return append(dst, v...), ok, nil
}

// Scan is part of state.Backing.
func (f *Backing) Scan(prefix []byte, fn func(k, v []byte) error) error {
	var keys []string
	gather := func(kv map[string][]byte) {
		for k := range kv {
			if strings.HasPrefix(k, string(prefix)) {
				keys = append(keys, k)
			}
		}
	}
	if len(prefix) >= prefixBytes {
		gather(f.kv[string(prefix[:prefixBytes])])
	} else {
		for _, kv := range f.kv {
			gather(kv)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		if err := fn([]byte(k), f.kv[k[:prefixBytes]][k]); err != nil {
			return err
		}
	}
	return nil
}

// ID is part of state.Backing.
func (f *Backing) ID(name string) (uint32, error) {
	if f.ids[name] == 0 {
		f.ids[name] = uint32(len(f.ids) + 1)
	}
	return f.ids[name], nil
}

// Apply takes a delta in, twice, and checks that its records are in order.
func (f *Backing) Apply(t testing.TB, d *state.Delta) {
	t.Helper()
	d.Sort()
	var last []byte
	for range 2 { // records are absolute: applying them again changes nothing
		last = nil
		if err := d.Records(func(r state.Record) error {
			if bytes.Compare(last, r.Key) > 0 {
				t.Fatalf("record %x behind %x", r.Key, last)
			}
			last = bytes.Clone(r.Key)
			kv := f.kv[string(r.Key[:prefixBytes])]
			if kv == nil {
				kv = map[string][]byte{}
				f.kv[string(r.Key[:prefixBytes])] = kv
			}
			switch r.Op {
			case state.Set:
				kv[string(r.Key)] = bytes.Clone(r.Value)
			case state.Delete:
				delete(kv, string(r.Key))
			case state.DeleteBelow:
				for k := range kv {
					if len(k) == len(r.Key) && k[:len(k)-8] == string(r.Key[:len(k)-8]) && k < string(r.Key) {
						delete(kv, k)
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
