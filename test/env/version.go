package testenv

import (
	"fmt"

	"github.com/weirstream/weir/internal/scratch"
)

// Version is the major version of a Postgres server.
type Version = scratch.Version

// The versions weir supports, oldest and newest; every version between them can be started as well.
const (
	Oldest = scratch.Oldest
	Newest = scratch.Newest
)

// Versions lists every version that can be started.
func Versions() []Version {
	var all []Version
	for v := Oldest; v <= Newest; v++ {
		all = append(all, v)
	}
	return all
}

// releaseOf is the exact release that is fetched for a version. A pinned release keeps a test from changing its result
// on the day a new minor release appears. Version 15 has none: it is the one that comes from the distribution, so that
// one of the tested servers is built the way most users' servers are.
func releaseOf(v Version) (string, error) {
	switch v {
	case 12:
		return "12.22.0", nil
	case 13:
		return "13.22.0", nil
	case 14:
		return "14.19.0", nil
	case 16:
		return "16.10.0", nil
	case 17:
		return "17.6.0", nil
	case 18:
		return "18.0.0", nil
	}
	return "", fmt.Errorf("no release of Postgres %s to fetch: supported are %s to %s", v, Oldest, Newest)
}
