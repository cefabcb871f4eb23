package operator

import (
	"encoding/binary"
	"fmt"
)

// groupValues keeps Refs out of what is kept of a group: they mean nothing in another process. The texts of Min and Max
// stand behind the rest instead, each with its length before it.
type groupValues struct{ a *aggregate }

func (f groupValues) Append(dst, value []byte) []byte {
	at := len(dst)
	dst = append(dst, value...)
	for i := range f.a.accs {
		acc := &f.a.accs[i]
		if acc.values == nil && acc.text == nil {
			continue
		}
		clear(dst[at+acc.off+accValue : at+acc.off+accValue+8])
		if acc.text != nil {
			b := f.a.groups.Blob(value[acc.off+accValue:])
			dst = append(binary.LittleEndian.AppendUint32(dst, uint32(len(b))), b...)
		}
	}
	return dst
}

func (f groupValues) Load(value, kept []byte) error {
	if len(kept) < len(value) {
		return fmt.Errorf("an aggregate's group of %d bytes, want %d", len(kept), len(value))
	}
	kept = kept[copy(value, kept):]
	for i := range f.a.accs {
		acc := &f.a.accs[i]
		if acc.text == nil {
			continue
		}
		if len(kept) < 4 || uint64(binary.LittleEndian.Uint32(kept)) > uint64(len(kept)-4) {
			return fmt.Errorf("an aggregate's group lacks the text of %s", acc.call.Func.Name())
		}
		n := 4 + binary.LittleEndian.Uint32(kept)
		f.a.groups.SetBlob(value[acc.off+accValue:], kept[4:n])
		kept = kept[n:]
	}
	if len(kept) != 0 {
		return fmt.Errorf("an aggregate's group is %d bytes too long", len(kept))
	}
	return nil
}

func (f groupValues) Release(value []byte) {
	for i := range f.a.accs {
		if acc := &f.a.accs[i]; acc.text != nil {
			f.a.groups.SetBlob(value[acc.off+accValue:], nil)
		}
	}
}
