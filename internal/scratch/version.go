package scratch

import "strconv"

// Version is the major version of a Postgres server.
type Version int

// The versions weir supports, oldest and newest.
const (
	Oldest Version = 12
	Newest Version = 18
)

func (v Version) String() string { return strconv.Itoa(int(v)) }
