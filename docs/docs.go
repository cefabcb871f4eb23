// Package docs carries the pages that the binary itself serves, so that what runs and what it is described by cannot
// drift apart.
package docs

import _ "embed"

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI describes the interface under /api/v1. The caller must not change it.
func OpenAPI() []byte { return openAPI }
