package expr

import "github.com/weirstream/weir/engine/row"

func mathFunctions() []*Function                  { return nil }
func stringFunctions() []*Function                { return nil }
func patternFunctions() []*Function               { return nil }
func timeFunctions() []*Function                  { return nil }
func codingFunctions() []*Function                { return nil }
func jsonFunctions() []*Function                  { return nil }
func collectionFunctions() []*Function            { return nil }
func randomFunctions() []*Function                { return nil }
func bindTimes(*Call) (kernel, error)             { return nil, nil }
func bindConcat(*Call, *Settings) (kernel, error) { return nil, nil }
func concatType([]Expr) row.Type                  { return kind(row.String) }
