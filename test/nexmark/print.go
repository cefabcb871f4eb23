package nexmark

import (
	"strconv"
	"time"

	"github.com/weirstream/weir/engine/row"
)

// Printer gives the events of a stream one by one, as text.
type Printer struct {
	gen     *Generator
	targets [numKinds]*target
	at      [numKinds]int // the next row of each
	next    int64
	to      int64
	form    [numKinds][]printed
}

type printed struct {
	key  string
	form byte // i number, s text, t time
}

// NewPrinter prints the stream of gen from event first on.
func NewPrinter(gen *Generator, first int64) *Printer {
	p := &Printer{gen: gen, next: first, to: first}
	for k := range numKinds {
		t, err := newTarget(Table{Kind: k})
		if err != nil {
			panic(err) // all columns of a kind that exists
		}
		p.targets[k] = t
		for _, f := range Schema(k) {
			form := byte('i')
			switch f.Type.Kind {
			case row.String:
				form = 's'
			case row.Timestamp:
				form = 't'
			}
			p.form[k] = append(p.form[k], printed{f.Name, form})
		}
	}
	return p
}

// advance finds the next event.
func (p *Printer) advance() (k Kind, i int) {
	if p.next == p.to {
		p.to = (p.next/BlockEvents + 1) * BlockEvents
		for k, t := range p.targets {
			p.gen.fill(t, p.next, p.to)
			p.at[k] = 0
		}
	}
	k = KindOf(p.next)
	i = p.at[k]
	p.at[k]++
	p.next++
	return k, i
}

// AppendJSON appends the next event as a line of JSON: event_type and one object named after the kind.
func (p *Printer) AppendJSON(dst []byte) []byte {
	k, i := p.advance()
	dst = append(dst, `{"event_type":`...)
	dst = append(dst, '0'+byte(k))
	dst = append(append(append(dst, `,"`...), k.String()...), `":{`...)
	for c, f := range p.form[k] {
		if c > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), f.key...), `":`...)
		if f.form != 'i' {
			dst = append(dst, '"')
		}
		dst = appendValue(dst, p.targets[k].col[c], i, f.form)
		if f.form != 'i' {
			dst = append(dst, '"')
		}
	}
	return append(dst, "}}\n"...)
}

// AppendCSV appends the next event as a line of CSV and tells its kind, which has a file of its own.
func (p *Printer) AppendCSV(dst []byte) ([]byte, Kind) {
	k, i := p.advance()
	for c, f := range p.form[k] {
		if c > 0 {
			dst = append(dst, ',')
		}
		dst = appendValue(dst, p.targets[k].col[c], i, f.form)
	}
	return append(dst, '\n'), k
}

func appendValue(dst []byte, v *row.Vector, i int, form byte) []byte {
	switch form {
	case 's':
		return append(dst, v.Bytes(i)...)
	case 't':
		return time.UnixMicro(v.Int64[i]).UTC().AppendFormat(dst, "2006-01-02 15:04:05.000")
	}
	return strconv.AppendInt(dst, v.Int64[i], 10)
}

// sumColumns are the columns that Sum folds, in its order; none stands for a field that the kind does not have.
type sumColumns struct {
	numbers [9]int
	strings [10]int
}

const none = -1

func sumOrder() [numKinds]sumColumns {
	return [numKinds]sumColumns{
		Person: {[9]int{personID, none, none, none, none, none, none, none, none},
			[10]int{personName, personEmail, personCard, personCity, personState, none, none, none, none, personExtra}},
		Auction: {[9]int{auctionID, auctionInitial, auctionReserve, auctionExpires, auctionSeller, auctionCategory, none, none, none},
			[10]int{none, none, none, none, none, auctionItem, auctionDescription, none, none, auctionExtra}},
		Bid: {[9]int{none, none, none, none, none, none, bidAuction, bidBidder, bidPrice},
			[10]int{none, none, none, none, none, none, none, bidChannel, bidURL, bidExtra}},
	}
}

// Sum folds count events from first on, in the order of their numbers, into one number that every implementation of the
// stream must come to.
func Sum(gen *Generator, first, count int64) uint64 {
	p := NewPrinter(gen, first)
	order := sumOrder()
	var h uint64
	for range count {
		k, i := p.advance()
		cols := &p.targets[k].col
		for _, c := range order[k].numbers {
			x := int64(0)
			if c != none {
				if x = cols[c].Int64[i]; p.form[k][c].form == 't' {
					x /= 1000 // times are folded in milliseconds
				}
			}
			h = mix(h ^ uint64(x))
		}
		for _, c := range order[k].strings {
			if c != none {
				for _, b := range cols[c].Bytes(i) {
					h = h*31 + uint64(b)
				}
			}
		}
	}
	return h
}
