package doctor

import (
	"slices"

	"github.com/weirstream/weir/internal/pg"
)

// fit is how a column of the target takes the values of the source's.
type fit uint8

const (
	same     fit = iota // every value, with the meaning it had
	narrower            // some values, or changed ones
	other
)

// families are types whose values a later one of the same family holds all of.
var families = [...][]string{
	{"int2", "int4", "int8", "numeric"},
	{"float4", "float8"},
	{"date", "timestamp"},
	{"json", "jsonb"},
	{"cidr", "inet"},
	{"macaddr", "macaddr8"},
}

// texts hold the text of anything. A fixed width pads, so char is not one of them.
var texts = []string{"text", "varchar"}

// fits compares by names: numbers of users' types differ from server to server.
func fits(from, to *pg.Column) fit {
	a, b := base(&from.Type), base(&to.Type)
	if a.Array != b.Array {
		if slices.Contains(texts, b.Name) && to.Mod < 0 {
			return same
		}
		return other
	}
	if a.Array && a.ElemType != nil && b.ElemType != nil {
		return fitsType(base(a.ElemType), base(b.ElemType), from.Mod, to.Mod)
	}
	return fitsType(a, b, from.Mod, to.Mod)
}

func base(t *pg.Type) *pg.Type {
	for t.BaseType != nil {
		t = t.BaseType
	}
	return t
}

func fitsType(a, b *pg.Type, modA, modB int32) fit {
	if a.Name == b.Name && (a.Schema == b.Schema || a.Extension != "" && a.Extension == b.Extension) {
		return fitsMod(a.Name, modA, modB)
	}
	if b.Schema != "pg_catalog" {
		return other
	}
	if slices.Contains(texts, b.Name) {
		switch {
		case modB < 0:
			return same
		case a.Name == "varchar" && modA >= 0 && modA <= modB:
			return same
		}
		return narrower
	}
	if a.Schema != "pg_catalog" {
		return other
	}
	if a.Name == "varchar" && b.Name == "bpchar" || a.Name == "text" && b.Name == "bpchar" {
		return narrower
	}
	for _, family := range families {
		i, j := slices.Index(family, a.Name), slices.Index(family, b.Name)
		if i < 0 || j < 0 {
			continue
		}
		if i > j || a.Name == "json" || modB >= 0 { // jsonb forgets how json was written
			return narrower
		}
		return same
	}
	return other
}

// fitsMod compares lengths, precisions and scales of one type.
func fitsMod(name string, a, b int32) fit {
	switch {
	case a == b, b < 0:
		return same
	case a < 0:
		return narrower
	case name == "numeric":
		// precision and scale; the scale is a signed number of 11 bits from 15 on
		pa, sa, pb, sb := precision(a), scale(a), precision(b), scale(b)
		if sb >= sa && pb-sb >= pa-sa {
			return same
		}
		return narrower
	case b > a && name != "bit" && name != "bpchar":
		return same
	}
	return narrower
}

func precision(mod int32) int32 { return (mod - 4) >> 16 & 0xffff }
func scale(mod int32) int32     { return ((mod-4)&0x7ff ^ 1024) - 1024 }
