// Package nexmark is the stream of the Nexmark benchmark: people, auctions and bids of an auction house.
//
// Every event is a pure function of the seed and its number, so that this package, its files and any other engine's
// source can carry the very same stream: of each 50 events the first is a person, three are auctions and 46 are bids;
// half of the bids go to the hot auction, three of four come from the hot bidder, three of four auctions from the hot
// seller. A checksum over a million events holds the definition.
//
// The stream comes as three tables. Between the tables order is kept by the block: of each BlockEvents events first the
// people come, then the auctions, then the bids, each as one batch in the order of events. A block ends with a boundary,
// so that no cut divides it.
package nexmark

import (
	"fmt"
	"slices"

	"github.com/weirstream/weir/engine/row"
)

// Kind is a table of the stream, and the number that event_type has in files.
type Kind uint8

// The kinds of events.
const (
	Person Kind = iota
	Auction
	Bid
	numKinds
)

// String is the table's name.
func (k Kind) String() string { return [...]string{"person", "auction", "bid"}[k] }

// BlockEvents is how many events a block has; it begins at a multiple of this.
const BlockEvents = 80 * round

// round is the length of the pattern of kinds: a person, 3 auctions, 46 bids.
const (
	round    = 50
	auctions = 3
	bids     = round - 1 - auctions
)

// Columns of the tables, in the order of Schema.
const (
	personID = iota
	personName
	personEmail
	personCard
	personCity
	personState
	personTime
	personExtra
)

const (
	auctionID = iota
	auctionItem
	auctionDescription
	auctionInitial
	auctionReserve
	auctionTime
	auctionExpires
	auctionSeller
	auctionCategory
	auctionExtra
)

const (
	bidAuction = iota
	bidBidder
	bidPrice
	bidChannel
	bidURL
	bidTime
	bidExtra
)

const maxColumns = 10

// Schema is the columns of a table under the names that Flink's benchmark uses. No value is NULL.
func Schema(k Kind) row.Schema {
	integer := func(name string) row.Field { return row.Field{Name: name, Type: row.Type{Kind: row.BigInt}} }
	text := func(name string) row.Field { return row.Field{Name: name, Type: row.Type{Kind: row.String}} }
	stamp := func(name string) row.Field {
		return row.Field{Name: name, Type: row.Type{Kind: row.Timestamp, Precision: 3}}
	}
	switch k {
	case Person:
		return row.Schema{integer("id"), text("name"), text("emailAddress"), text("creditCard"), text("city"), text("state"), stamp("dateTime"), text("extra")}
	case Auction:
		return row.Schema{integer("id"), text("itemName"), text("description"), integer("initialBid"), integer("reserve"), stamp("dateTime"),
			stamp("expires"), integer("seller"), integer("category"), text("extra")}
	default:
		return row.Schema{integer("auction"), integer("bidder"), integer("price"), text("channel"), text("url"), stamp("dateTime"), text("extra")}
	}
}

// Table is a table that somebody asks for, with the columns wanted in the order wanted; nil means all.
type Table struct {
	Kind    Kind
	Columns []string
}

// Everything is all three tables with all columns.
func Everything() []Table { return []Table{{Kind: Person}, {Kind: Auction}, {Kind: Bid}} }

// Schema is the schema of the columns asked for.
func (t Table) Schema() (row.Schema, error) {
	full := Schema(t.Kind)
	if t.Columns == nil {
		return full, nil
	}
	s := row.Schema{}
	for _, name := range t.Columns {
		i := full.Index(name)
		if i < 0 {
			return nil, fmt.Errorf("nexmark: %s has no column %s", t.Kind, name)
		}
		s = append(s, full[i])
	}
	return s, nil
}

// rows is how many events of [from, to) are of the kind.
func (k Kind) rows(from, to int64) int { return int(k.before(to) - k.before(from)) }

// before is how many events below n are of the kind.
func (k Kind) before(n int64) int64 {
	full, o := n/round, n%round
	switch k {
	case Person:
		return full + min(o, 1)
	case Auction:
		return full*auctions + min(max(o-1, 0), auctions)
	default:
		return full*bids + max(o-1-auctions, 0)
	}
}

// KindOf is the kind of event n.
func KindOf(n int64) Kind {
	switch o := n % round; {
	case o == 0:
		return Person
	case o <= auctions:
		return Auction
	default:
		return Bid
	}
}

// target is a table's batch being filled.
type target struct {
	kind    Kind
	batch   row.Batch
	vectors []row.Vector
	// col finds a column's vector by its place in the kind's schema; nil where nobody asked for it.
	col [maxColumns]*row.Vector
}

func newTarget(t Table) (*target, error) {
	if t.Kind >= numKinds {
		return nil, fmt.Errorf("nexmark: no kind %d", t.Kind)
	}
	full := Schema(t.Kind)
	want := t.Columns
	if want == nil {
		for _, f := range full {
			want = append(want, f.Name)
		}
	}
	g := &target{kind: t.Kind, vectors: make([]row.Vector, len(want))}
	for i, name := range want {
		at := full.Index(name)
		if at < 0 {
			return nil, fmt.Errorf("nexmark: %s has no column %s", t.Kind, name)
		}
		if slices.Contains(want[:i], name) {
			return nil, fmt.Errorf("nexmark: column %s of %s is asked for twice", name, t.Kind)
		}
		g.col[at] = &g.vectors[i]
		g.batch.Cols = append(g.batch.Cols, &g.vectors[i])
	}
	return g, nil
}
