package nexmark

import "github.com/weirstream/weir/engine/row"

// Multiples of golden modulo 2^64: steps over several draws.
const (
	golden2 = golden * 2 & (1<<64 - 1)
	golden3 = golden * 3 & (1<<64 - 1)
	golden4 = golden * 4 & (1<<64 - 1)
)

const (
	base       = 1_767_225_600_000 // milliseconds, 2026-01-01 00:00:00
	firstID    = 1000
	activeMost = 1000 // people who may still bid or sell
	inFlight   = 100  // auctions that get the cold half of the bids
	lead       = 10   // bids and auctions also name those that are still to come
	hotEvery   = 100
)

// Generator makes events of one stream as columns. Its tables are shared and read only; it has no position, so any
// number of goroutines may use one.
type Generator struct {
	*texts
	seed   uint64
	tps    int64
	expiry int64
}

// NewGenerator returns the generator of the stream with seed, at tps events per second of event time.
func NewGenerator(seed uint64, tps int64) *Generator {
	return &Generator{texts: newTexts(), seed: seed, tps: tps, expiry: max(1667*1000/tps*2, 1)}
}

// millis is the time of event n.
func (g *Generator) millis(n int64) int64 { return base + n*1000/g.tps }

func (g *Generator) state(n int64) uint64 { return mix(g.seed + uint64(n)*golden) }

// fill sets t to the events of its kind in [from, to), which a batch must be able to hold. The strings are spans of the
// generator's heaps.
func (g *Generator) fill(t *target, from, to int64) {
	n := t.kind.rows(from, to)
	for i, v := range t.col {
		if v == nil {
			continue
		}
		heap := g.heap(t.kind, i)
		if heap == nil {
			v.Int64 = resize(v.Int64, n)
		} else {
			v.Spans, v.Heap = resize(v.Spans, n), heap
		}
	}
	t.batch.Len = n
	switch t.kind {
	case Person:
		g.persons(t, from, to)
	case Auction:
		g.auctions(t, from, to)
	default:
		g.bids(t, from, to)
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// heap is where the strings of a column lie, nil if it is no string.
func (g *Generator) heap(k Kind, column int) []byte {
	switch k {
	case Person:
		switch column {
		case personName:
			return g.names.heap
		case personCity:
			return g.cities.heap
		case personState:
			return g.texts.states.heap
		case personEmail, personCard, personExtra:
			return g.words
		}
	case Auction:
		switch column {
		case auctionItem, auctionDescription, auctionExtra:
			return g.words
		}
	case Bid:
		switch column {
		case bidChannel:
			return g.texts.channels.heap
		case bidURL:
			return g.urls.heap
		case bidExtra:
			return g.words
		}
	}
	return nil
}

func (g *Generator) persons(t *target, from, to int64) {
	c := &t.col
	k := 0
	for e := (from + round - 1) / round; e*round < to; e++ {
		s := g.state(e * round)
		draw := func(i uint64) uint64 { return mix(s + i*golden) }
		setInt(c[personID], k, firstID+e)
		if v := c[personName]; v != nil {
			v.Spans[k] = g.names.spans[below(draw(1), 11)]
		}
		if v := c[personEmail]; v != nil {
			v.Spans[k] = word(draw(2), draw(3), 12, 20)
		}
		if v := c[personCard]; v != nil {
			v.Spans[k] = word(draw(4), draw(5), 19, 19)
		}
		if v := c[personCity]; v != nil {
			v.Spans[k] = g.cities.spans[below(draw(6), 10)]
		}
		if v := c[personState]; v != nil {
			v.Spans[k] = g.states.spans[below(draw(7), 6)]
		}
		if v := c[personTime]; v != nil {
			v.Int64[k] = g.millis(e*round) * 1000
		}
		if v := c[personExtra]; v != nil {
			v.Spans[k] = word(draw(8), draw(9), 80, 120)
		}
		k++
	}
}

func setInt(v *row.Vector, k int, x int64) {
	if v != nil {
		v.Int64[k] = x
	}
}

func (g *Generator) auctions(t *target, from, to int64) {
	c := &t.col
	k := 0
	for n := from; n < to; n++ {
		e, o := n/round, n%round
		if o < 1 || o > auctions {
			if o > auctions {
				n = (e+1)*round - 1
			}
			continue
		}
		s := g.state(n)
		draw := func(i uint64) uint64 { return mix(s + i*golden) }
		ms := g.millis(n)
		setInt(c[auctionID], k, firstID+e*auctions+o-1)
		if v := c[auctionItem]; v != nil {
			v.Spans[k] = word(draw(1), draw(2), 10, 20)
		}
		if v := c[auctionDescription]; v != nil {
			v.Spans[k] = word(draw(3), draw(4), 60, 100)
		}
		if c[auctionInitial] != nil || c[auctionReserve] != nil {
			initial := g.price(draw(5))
			setInt(c[auctionInitial], k, initial)
			setInt(c[auctionReserve], k, initial+g.price(draw(6)))
		}
		setInt(c[auctionTime], k, ms*1000)
		if v := c[auctionExpires]; v != nil {
			v.Int64[k] = (ms + 1 + below(draw(7), g.expiry)) * 1000
		}
		// The cold seller takes a draw of its own, and those behind it are one further.
		people := e + 1
		active := min(people, activeMost)
		seller, next := e/hotEvery*hotEvery, uint64(9)
		if draw(8)>>62 == 0 {
			seller, next = people-active+below(draw(9), active+lead), 10
		}
		setInt(c[auctionSeller], k, firstID+seller)
		if v := c[auctionCategory]; v != nil {
			v.Int64[k] = 10 + below(draw(next), 5)
		}
		if v := c[auctionExtra]; v != nil {
			v.Spans[k] = word(draw(next+1), draw(next+2), 280, 420)
		}
		k++
	}
}

// bids is where the time goes: 46 of 50 events. A bid's draws are a coin and sometimes a number behind it; the loop draws
// the number always and moves on by 0 or 1, because a branch on a coin is guessed wrong half of the time.
func (g *Generator) bids(t *target, from, to int64) {
	auction, bidder, price, channel, url, when, extra := t.col[bidAuction], t.col[bidBidder], t.col[bidPrice], t.col[bidChannel], t.col[bidURL], t.col[bidTime], t.col[bidExtra]
	stepMS, stepRest := 1000/g.tps, 1000%g.tps
	texts := channel != nil || url != nil
	k := 0
	for n := from; n < to; {
		e, o := n/round, n%round
		if o <= auctions {
			n += auctions + 1 - o
			continue
		}
		end := min(to, (e+1)*round)
		last := e*auctions + auctions - 1
		lowest := max(last-inFlight, 0)
		width := last - lowest + 1 + lead
		hotAuction := last / hotEvery * hotEvery
		people := e + 1
		active := min(people, activeMost)
		hotBidder := e/hotEvery*hotEvery + 1
		ms, rest := base+n*1000/g.tps, n*1000%g.tps
		for ; n < end; n++ {
			s := g.state(n) + golden
			isHot := -int64(mix(s) >> 63) // all ones if the coin says hot
			if auction != nil {
				cold := lowest + below(mix(s+golden), width)
				auction.Int64[k] = firstID + (cold ^ (cold^hotAuction)&isHot)
			}
			s += golden + golden&uint64(^isHot)
			isHot = int64(mix(s)>>62+3) >> 2 // 0 for a coin of 0, else 1
			isHot = -isHot
			if bidder != nil {
				cold := people - active + below(mix(s+golden), active+lead)
				bidder.Int64[k] = firstID + (cold ^ (cold^hotBidder)&isHot)
			}
			s += golden + golden&uint64(^isHot)
			if price != nil {
				price.Int64[k] = g.price(mix(s))
			}
			if texts {
				isHot = -int64(mix(s+golden) >> 63)
				c := below(mix(s+golden2), channels^(channels^hot)&isHot) + channels&isHot
				if channel != nil {
					channel.Spans[k] = g.channels.spans[c]
				}
				if url != nil {
					url.Spans[k] = g.urls.spans[c]
				}
			}
			if extra != nil {
				extra.Spans[k] = word(mix(s+golden3), mix(s+golden4), 54, 82)
			}
			if when != nil {
				when.Int64[k] = ms * 1000
			}
			ms += stepMS
			if rest += stepRest; rest >= g.tps {
				rest -= g.tps
				ms++
			}
			k++
		}
	}
}
