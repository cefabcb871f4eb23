// Package orders is the example of that name, so that programs can show it.
package orders

import (
	"embed"
	"fmt"
)

//go:embed *.sql
var files embed.FS

// SQL is one of the example's files: shop, bank and report make the three databases, orders is what weir runs.
func SQL(name string) string {
	b, err := files.ReadFile(name + ".sql")
	if err != nil {
		panic(fmt.Sprintf("examples/orders has no %s.sql", name))
	}
	return string(b)
}
