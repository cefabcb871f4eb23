package pg

// For the tests of package pg_test, which talk to servers.

func (t *Target) WhyNotIndex(x *Index) string      { return t.whyNotIndex(x) }
func (t *Target) WhyNotCheck(k *Constraint) string { return t.whyNotCheck(k) }
func (t *Target) WhyNotDefault(c *Column) string   { return t.whyNotDefault(c) }

// BinaryOIDs are the built-in types that travel in binary.
func BinaryOIDs() (oids []uint32) {
	return append(sortedKeys(binaryScalars), sortedKeys(binaryContainers)...)
}
