package pg

// Type is a data type of one server. Numbers of types above firstUserOID differ from server to server and even from
// database to database; the names are what travels.
type Type struct {
	OID       uint32
	Schema    string
	Name      string
	Kind      byte // b base, c composite, d domain, e enum, p pseudo, r range, m multirange
	Category  byte // typcategory
	Array     bool // a true array: int2vector and oidvector, which also have an element type, are not
	Elem      uint32
	Base      uint32
	ElemType  *Type // element of an array, bound of a range, range of a multirange
	BaseType  *Type // what a domain is over
	Extension string
	Relation  uint32 // the table or composite whose row a composite is
	Collation uint32 // typcollation
	Len       int16
}

// firstUserOID: below it oids are fixed in Postgres's sources and equal on every server.
const firstUserOID = 10000

// Builtin tells whether every server has the type under the same oid.
func (t *Type) Builtin() bool { return t.OID != 0 && t.OID < firstUserOID }

// binaryScalars are the built-in scalars whose binary form, written by any server from 12 to 18, is read by any other
// to a value with the same text. A type that is not here travels as text; that is slower and never wrong.
//
// Left out on purpose:
//   - interval: 17 gave infinity the largest values of all three fields. An older server stores those bytes as a finite
//     value that it may not even be able to print; the text 'infinity' it refuses at once.
//   - tsquery: the receive function of every version refuses the empty query that the send function writes.
//   - money: the integer means cents, or not, by the lc_monetary of whoever reads it.
//   - xml: the receiving side interprets an encoding declaration that the sending side has already dropped or kept.
//   - regclass and its kind: binary is an oid, which names something else on another server; text is the name.
//   - aclitem, gtsvector and others without a send function: the server itself sends text.
//   - jsonpath, int2vector, oidvector, refcursor, and the statistics types: never measured, never common.
var binaryScalars = map[uint32]bool{
	16: true, 17: true, 18: true, 19: true, 20: true, 21: true, 23: true, 25: true, // bool bytea "char" name int8 int2 int4 text
	26: true, 27: true, 28: true, 29: true, 5069: true, // oid tid xid cid xid8
	114: true, 3802: true, // json (its binary form is its text) jsonb
	600: true, 601: true, 602: true, 603: true, 604: true, 628: true, 718: true, // point lseg path box polygon line circle
	650: true, 869: true, 829: true, 774: true, // cidr inet macaddr macaddr8
	700: true, 701: true, 1700: true, // float4 float8 numeric
	1042: true, 1043: true, 1560: true, 1562: true, // bpchar varchar bit varbit
	1082: true, 1083: true, 1114: true, 1184: true, 1266: true, // date time timestamp timestamptz timetz
	2950: true, 3220: true, 2970: true, 5038: true, // uuid pg_lsn txid_snapshot pg_snapshot
	3614: true, // tsvector
}

// binaryContainers are built-in ranges and multiranges; their bounds are all in binaryScalars.
var binaryContainers = map[uint32]bool{
	3904: true, 3906: true, 3908: true, 3910: true, 3912: true, 3926: true, // int4 num ts tstz date int8 range
	4451: true, 4532: true, 4533: true, 4534: true, 4535: true, 4536: true, // their multiranges
}

// BinaryExact tells whether a value of the type, sent in binary by one server and read in binary by another of any
// version from 12 to 18, has the same text there.
//
// Enums are their labels in binary too. Domains are their base type. Ranges carry their bounds and no type number. The
// types that embed oids of other types are exact only while those oids are fixed: an array names its element type, so
// arrays of user types are not; a composite names every field's type and so never is. A type of an extension is
// written by whatever version of the extension each side has, and its vendors promise nothing.
func BinaryExact(t Type) bool {
	switch {
	case t.Extension != "":
		return false
	case t.Array:
		return t.ElemType != nil && t.ElemType.Builtin() && BinaryExact(*t.ElemType)
	case t.Kind == 'e':
		return true
	case t.Kind == 'd':
		return t.BaseType != nil && BinaryExact(*t.BaseType)
	case t.Kind == 'r', t.Kind == 'm':
		return binaryContainers[t.OID] || t.ElemType != nil && BinaryExact(*t.ElemType)
	}
	return t.Builtin() && binaryScalars[t.OID]
}

// TextOnly is the opposite of BinaryExact, for code that reads better so.
func TextOnly(t Type) bool { return !BinaryExact(t) }

// reach calls fn for t and everything it is made of.
func (t *Type) reach(fn func(*Type)) {
	for ; t != nil; t = t.BaseType {
		fn(t)
		if t.ElemType != nil {
			t.ElemType.reach(fn)
		}
	}
}

// named is the type whose schema stands before t when it is written in SQL: an array goes by its element.
func (t *Type) named() *Type {
	if t.Array && t.ElemType != nil {
		return t.ElemType
	}
	return t
}

// extension is the extension that t or what it is made of belongs to: what has to be installed before t can be used. An
// array of an extension's type, or a domain over one, is not a member of the extension itself.
func (t *Type) extension() string {
	name := ""
	t.reach(func(x *Type) {
		if name == "" {
			name = x.Extension
		}
	})
	return name
}
