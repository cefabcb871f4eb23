package selection

import (
	"strings"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/pg"
)

// route is a pattern and the name that takes its place.
type route struct {
	from *pattern
	to   [2][]piece // schema and table
}

// piece of a target name: text, or the number of the star that is put there.
type piece struct {
	text string
	star int // -1 for text
}

// newRoute counts stars. With as many on both sides they are filled in order. With fewer on the right, each part of the
// new name takes the stars of the same part of the old one: *.* to copy.* means the table's name, not the schema's.
func newRoute(r api.Route) (*route, error) {
	from, err := newScanner("routes.from", r.From).one(2)
	if err != nil {
		return nil, err
	}
	to := newScanner("routes.to", r.To)
	parts, err := to.template()
	if err != nil {
		return nil, err
	}
	out := &route{from: from}
	have := [2]int{from.stars[0], from.stars[1]}
	want := [2]int{stars(parts[0]), stars(parts[1])}
	inOrder := want[0]+want[1] == have[0]+have[1]
	for i, part := range parts {
		next := 0
		switch {
		case inOrder && i == 1:
			next = want[0]
		case inOrder:
		case want[i] > have[i]:
			return nil, to.fail(0, "give both sides the same stars", "%s has %d stars where %s has %d", r.To, want[0]+want[1], r.From, have[0]+have[1])
		case i == 1:
			next = have[0]
		}
		for j := range part {
			if part[j].star >= 0 {
				part[j].star = next
				next++
			}
		}
		out.to[i] = part
	}
	if len(out.to[0]) == 1 && out.to[0][0].star < 0 && reserved(out.to[0][0].text) {
		return nil, to.fail(0, "", "schema %s is not for users' tables", out.to[0][0].text)
	}
	return out, nil
}

func stars(part []piece) (n int) {
	for _, p := range part {
		if p.star >= 0 {
			n++
		}
	}
	return n
}

// template reads the right side of a route. Only the star is special in it, and quotes.
func (s *scanner) template() ([2][]piece, error) {
	var parts [2][]piece
	s.spaces()
	end := len(s.runes)
	for end > s.pos && strings.ContainsRune(" \t\r\n", s.runes[end-1]) {
		end--
	}
	s.runes = s.runes[:end]
	i := 0
	text := func(t string) {
		if n := len(parts[i]); n > 0 && parts[i][n-1].star < 0 {
			parts[i][n-1].text += t
			return
		}
		parts[i] = append(parts[i], piece{text: t, star: -1})
	}
	for s.pos < len(s.runes) {
		switch r := s.runes[s.pos]; r {
		case '.':
			if len(parts[i]) == 0 {
				return parts, s.fail(s.pos, "", "a name is missing here")
			}
			if i++; i == 2 {
				return parts, s.fail(s.pos, `write a name that holds a dot in quotes: public."a.b"`, "%s has more parts than schema.table", s.text)
			}
		case '*':
			parts[i] = append(parts[i], piece{})
		case '?', '[', ',', ' ':
			return parts, s.fail(s.pos, "write it in quotes if it is part of the name", "%q cannot stand in the new name of a table", r)
		case '"':
			var quoted partBuilder
			if err := s.quoted(&quoted); err != nil {
				return parts, err
			}
			text(quoted.plain.String())
			continue
		default:
			text(string(r))
		}
		s.pos++
	}
	if len(parts[i]) == 0 {
		return parts, s.fail(s.pos, "", "a name is missing here")
	}
	if i == 0 {
		return parts, s.fail(0, "write schema.table", "%s names no schema", s.text)
	}
	return parts, nil
}

// name fills the stars in. A name that grew too long ends in a hash, because Postgres would cut it without a word.
func (r *route) name(found []string) pg.TargetName {
	var out [2]string
	for i, part := range r.to {
		for _, p := range part {
			if p.star < 0 {
				out[i] += p.text
			} else {
				out[i] += found[p.star]
			}
		}
	}
	return pg.TargetName{Schema: pg.Shorten(out[0]), Name: pg.Shorten(out[1])}
}
