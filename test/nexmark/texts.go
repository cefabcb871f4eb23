package nexmark

import (
	"math"
	"strconv"

	"github.com/weirstream/weir/engine/row"
)

const (
	golden    = 0x9E3779B97F4A7C15
	textBytes = 1 << 16 // where a word may begin
	longest   = 1024    // room behind it
	channels  = 10_000
	hot       = 4
)

// mix is the finalizer of splitmix64, whose k-th number is mix(state + k*golden): any draw can be made without those
// before it.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// below makes a number in [0, n) of a draw.
func below(draw uint64, n int64) int64 { return int64((draw >> 32) * uint64(n) >> 32) }

// list is strings that lie in one heap, so that a column of them is spans only.
type list struct {
	heap  []byte
	spans []row.Span
}

func (l *list) add(s string) {
	l.spans = append(l.spans, row.Span{Off: uint32(len(l.heap)), Len: uint32(len(s))})
	l.heap = append(l.heap, s...)
}

// seal takes the spare room from the heap: an append to a vector that borrows it copies instead of writing here.
func (l *list) seal() { l.heap = l.heap[:len(l.heap):len(l.heap)] }

func listOf(words ...string) list {
	var l list
	for _, w := range words {
		l.add(w)
	}
	l.seal()
	return l
}

// texts are the strings of the stream and the tables behind its prices. They are made once and never change.
type texts struct {
	words                 []byte // letters; every free text is a piece of it
	names, cities, states list
	channels, urls        list // channels of the many, then the hot ones
	mantissa              [4097]uint64
	power                 [6]uint64
}

func newTexts() *texts {
	t := &texts{
		words:  make([]byte, textBytes+longest),
		names:  listOf("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"),
		cities: listOf("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"),
		states: listOf("AZ", "CA", "ID", "OR", "WA", "WY"),
		power:  [6]uint64{100, 1000, 10_000, 100_000, 1_000_000, 10_000_000},
	}
	state := uint64(42)
	for i := range t.words {
		state += golden
		t.words[i] = 'a' + byte(mix(state)%26)
	}
	for i := range t.mantissa {
		t.mantissa[i] = uint64(math.Floor(math.Pow(10, float64(i)/4096)*(1<<32) + 0.5))
	}
	for i := range channels {
		t.channels.add("channel-" + strconv.Itoa(i))
	}
	for _, c := range [hot]string{"Google", "Facebook", "Baidu", "Apple"} {
		t.channels.add(c)
	}
	for i := range channels + hot {
		o := i * 5
		url := "https://www.nexmark.com/" + string(t.words[o:o+5]) + "/" + string(t.words[o+5:o+10]) + "/" + string(t.words[o+10:o+15]) + "/item.htm?query=1"
		if i%4 != 0 {
			url += "&channel_id=" + strconv.Itoa(i*7919)
		}
		t.urls.add(url)
	}
	t.channels.seal()
	t.urls.seal()
	return t
}

// price makes a price of a draw: even over six powers of ten on a logarithmic scale.
func (t *texts) price(u uint64) int64 {
	e, i, f := (u>>32)*6>>32, u&4095, u>>12&0xFFFFF
	return int64((t.mantissa[i] + (t.mantissa[i+1]-t.mantissa[i])*f>>20) * t.power[e] >> 32)
}

// word is a piece of words with a length in [lo, hi].
func word(length, place uint64, lo, hi int64) row.Span {
	return row.Span{Off: uint32(below(place, textBytes)), Len: uint32(lo + below(length, hi-lo+1))}
}
