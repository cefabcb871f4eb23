package expr

func codingFunctions() []*Function     { return nil }
func jsonFunctions() []*Function       { return nil }
func collectionFunctions() []*Function { return nil }
func randomFunctions() []*Function     { return nil }
