package selection

import (
	"slices"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/api"
	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

func compile(t *testing.T, spec api.MirrorSpec) *Selection {
	t.Helper()
	s, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIncludes(t *testing.T) {
	for _, c := range []struct {
		tables, except string
		yes, no        string // schema|table, separated by spaces
	}{
		{"", "", "public|a app|b", "pg_catalog|pg_class information_schema|tables _weir|ledger pg_toast|x"},
		{"*", "", "public|a", "_weir|ledger"},
		{"public.*", "", "public|a public|a.b", "app|a public2|a"},
		{"public.orders, app.o?ders_[0-9a]", "", "public|orders app|orders_7 app|orders_a app|oüders_1", "app|orders_b app|orders_77 app|orders"},
		{"public.[!_]*", "", "public|a", "public|_a public|"},
		{"public.[]x-]", "", "public|] public|x public|-", "public|y"},
		{"public.[^a-c]", "", "public|d", "public|b"},
		{`"we.ird"."a,b*"`, "", "we.ird|a,b*", "we.ird|a,bc"},
		{`public."a ""b"""*`, "", `public|a_"b"c`, "public|a"},
		{"public.*", "public.audit_*,*.tmp", "public|a", "public|audit_1 public|tmp"},
		{"*.*_2024", "", "a|b_2024", "a|b_2025"},
		{"Public.A", "", "Public|A", "public|a"},
		{"public.a+(b)", "", "public|a+(b)", "public|aab"},
	} {
		spec := api.MirrorSpec{}
		if c.tables != "" {
			spec.Tables = []string{c.tables}
		}
		if c.except != "" {
			spec.Except = []string{c.except}
		}
		s := compile(t, spec)
		for want, names := range map[bool]string{true: c.yes, false: c.no} {
			for _, n := range strings.Fields(names) {
				n = strings.ReplaceAll(n, `a_"`, `a "`) // names in this table cannot hold a space
				schema, table, _ := strings.Cut(n, "|")
				if got := s.Includes(schema, table); got != want {
					t.Errorf("%q except %q: Includes(%q, %q) = %t", c.tables, c.except, schema, table, got)
				}
			}
		}
	}
}

// A star must not cross the dot between schema and table, whatever the names hold.
func TestStarStaysInItsPart(t *testing.T) {
	s := compile(t, api.MirrorSpec{Tables: []string{"a*.b"}})
	if s.Includes("a", "x.b") || s.Includes("a.x", "y") {
		t.Error("the star took text of another part")
	}
	if !s.Includes("a.x", "b") {
		t.Error("a dot inside a schema's name ended the star")
	}
}

func TestBadPatterns(t *testing.T) {
	for _, c := range []struct {
		spec   api.MirrorSpec
		column int
		want   string
	}{
		{api.MirrorSpec{Tables: []string{"orders"}}, 1, "names no schema"},
		{api.MirrorSpec{Tables: []string{"public.a,orders"}}, 10, "names no schema"},
		{api.MirrorSpec{Tables: []string{"public."}}, 8, "missing"},
		{api.MirrorSpec{Tables: []string{"public.a,"}}, 10, "missing"},
		{api.MirrorSpec{Tables: []string{""}}, 1, "missing"},
		{api.MirrorSpec{Tables: []string{".a"}}, 1, "missing"},
		{api.MirrorSpec{Tables: []string{"db.public.a"}}, 1, "3 parts"},
		{api.MirrorSpec{Tables: []string{`public."a`}}, 8, "not closed"},
		{api.MirrorSpec{Tables: []string{"public.ä[bc"}}, 9, "no ]"},
		{api.MirrorSpec{Tables: []string{"public.[z-a]"}}, 9, "backwards"},
		{api.MirrorSpec{Tables: []string{"public.a public.b"}}, 9, "no comma"},
		{api.MirrorSpec{Except: []string{"x"}}, 1, "names no schema"},
		{api.MirrorSpec{Exclude: []string{"public.a"}}, 1, "schema.table.column"},
		{api.MirrorSpec{Filters: []api.Filter{{Table: "public.a,public.b", Where: "true"}}}, 9, "only one"},
		{api.MirrorSpec{Filters: []api.Filter{{Table: "public.a", Where: " "}}}, 1, "no condition"},
		{api.MirrorSpec{Routes: []api.Route{{From: "public.a", To: "x.*"}}}, 1, "stars"},
		{api.MirrorSpec{Routes: []api.Route{{From: "public.*", To: "x"}}}, 1, "names no schema"},
		{api.MirrorSpec{Routes: []api.Route{{From: "public.*", To: "x.a?"}}}, 4, "cannot stand"},
		{api.MirrorSpec{Routes: []api.Route{{From: "public.*", To: "x.y.z"}}}, 4, "more parts"},
		{api.MirrorSpec{Routes: []api.Route{{From: "public.*", To: "_weir.*"}}}, 1, "not for users"},
	} {
		_, err := New(c.spec)
		e, ok := errs.As(err)
		if !ok || e.Code != errs.BadPattern || e.Pos == nil {
			t.Errorf("%+v: %v", c.spec, err)
			continue
		}
		if e.Pos.Column != c.column || !strings.Contains(e.Message, c.want) {
			t.Errorf("%+v: column %d, %s; want column %d, %q", c.spec, e.Pos.Column, e.Message, c.column, c.want)
		}
	}
}

func TestRoutes(t *testing.T) {
	for _, c := range []struct{ from, to, table, want string }{
		{"public.*", "app.*", "public|a", "app|a"},
		{"*.*", "*.*", "s|a", "s|a"},
		{"*.*", "copy.*", "s|a", "copy|a"},
		{"*.*", "*.one", "s|a", "s|one"},
		{"*.*", "copy.*_*", "s|a", "copy|s_a"},
		{"shop_*.*", "all.*", "shop_de|a", "all|a"},
		{"shop_*.*", "all.*_*", "shop_de|a", "all|de_a"},
		{"public.*_*", "*.*", "public|x_y", "x|y"},
		{"public.[ab]*", `"X.Y".*`, "public|a1", "X.Y|1"},
		{"public.b", "x.y", "public|a", "public|a"},
		{"public.*", "x.*", "public|*", "x|*"},
		{"public.*", "long." + strings.Repeat("x", 60) + "*", "public|abcdef", "long|" + pg.Shorten(strings.Repeat("x", 60)+"abcdef")},
	} {
		s := compile(t, api.MirrorSpec{Routes: []api.Route{{From: c.from, To: c.to}}})
		schema, table, _ := strings.Cut(c.table, "|")
		ts, tn := s.Route(schema, table)
		if got := ts + "|" + tn; got != c.want {
			t.Errorf("%s to %s: %s becomes %s, want %s", c.from, c.to, c.table, got, c.want)
		}
	}
	s := compile(t, api.MirrorSpec{Routes: []api.Route{{From: "public.a", To: "x.first"}, {From: "public.*", To: "x.*"}}})
	if _, n := s.Route("public", "a"); n != "first" {
		t.Errorf("the first route does not win: %s", n)
	}
}

func TestColumnsAndFilters(t *testing.T) {
	s := compile(t, api.MirrorSpec{
		Exclude: []string{"public.users.password*, *.*.secret"},
		Filters: []api.Filter{{Table: "public.users", Where: "id > 1"}, {Table: "public.*", Where: "true"}},
	})
	for column, want := range map[string]bool{"password_hash": true, "secret": true, "name": false} {
		if s.Excluded("public", "users", column) != want {
			t.Errorf("Excluded(%s) = %t", column, !want)
		}
	}
	if got := s.Filter("public", "users"); got != "id > 1" {
		t.Errorf("filter of users: %q", got)
	}
	if got := s.Filter("app", "users"); got != "" {
		t.Errorf("filter of app.users: %q", got)
	}
}

func TestPick(t *testing.T) {
	all := []pg.TableName{
		{OID: 1, Schema: "public", Name: "plain", Kind: 'r', Persistence: 'p'},
		{OID: 2, Schema: "public", Name: "root", Kind: 'p', Persistence: 'p'},
		{OID: 3, Schema: "public", Name: "leaf", Kind: 'r', Persistence: 'p', Parent: 2},
		{OID: 4, Schema: "app", Name: "lone_leaf", Kind: 'r', Persistence: 'p', Parent: 5},
		{OID: 5, Schema: "other", Name: "root", Kind: 'p', Persistence: 'p'},
		{OID: 6, Schema: "public", Name: "view", Kind: 'v', Persistence: 'p'},
		{OID: 7, Schema: "public", Name: "unlogged", Kind: 'r', Persistence: 'u'},
		{OID: 8, Schema: "_weir", Name: "ledger", Kind: 'r', Persistence: 'p'},
		{OID: 9, Schema: "public", Name: "hidden", Kind: 'r', Persistence: 'p'},
	}
	for i := range all {
		all[i].Columns = []string{"id"}
	}
	all = append(all, pg.TableName{OID: 10, Schema: "public", Name: "bare", Kind: 'r', Persistence: 'p'})
	s := compile(t, api.MirrorSpec{Tables: []string{"public.*,app.lone_leaf,gone.*"}, Exclude: []string{"public.hidden.*"}})
	picked, left := s.Pick(all)
	var names []string
	for _, p := range picked {
		names = append(names, p.Name)
	}
	if !slices.Equal(names, []string{"plain", "root"}) {
		t.Errorf("picked %v", names)
	}
	why := map[string]Left{}
	for _, l := range left {
		why[l.Table.Name] = l
	}
	if len(why) != 6 || !why["leaf"].Part || why["lone_leaf"].Part || !why["lone_leaf"].Named ||
		!strings.Contains(why["lone_leaf"].Why, "other.root") || why["view"].Named || !strings.Contains(why["unlogged"].Why, "unlogged") ||
		!strings.Contains(why["hidden"].Why, "all its columns") || !strings.Contains(why["bare"].Why, "no columns") {
		t.Errorf("left out: %+v", left)
	}
	if got := s.Unmatched(all); !slices.Equal(got, []string{"gone.*"}) {
		t.Errorf("unmatched: %q", got)
	}
}

func TestCheck(t *testing.T) {
	tables := []pg.TableName{
		{OID: 1, Schema: "public", Name: "Users", Kind: 'r', Persistence: 'p'},
		{OID: 2, Schema: "public", Name: "root", Kind: 'p', Persistence: 'p'},
		{OID: 3, Schema: "public", Name: "leaf", Kind: 'r', Persistence: 'p', Parent: 2},
		{OID: 4, Schema: "app", Name: "a.b", Kind: 'r', Persistence: 'p'},
	}
	columns := func() ([]pg.ColumnName, error) {
		return []pg.ColumnName{{Table: 1, Name: "id"}, {Table: 1, Name: "email"}, {Table: 2, Name: "id"}, {Table: 3, Name: "id"}, {Table: 4, Name: "x y"}}, nil
	}
	exclude := func(p string) api.MirrorSpec {
		return api.MirrorSpec{Tables: []string{"public.*"}, Exclude: []string{p}}
	}
	filter := func(p string) api.MirrorSpec {
		return api.MirrorSpec{Tables: []string{"public.*"}, Filters: []api.Filter{{Table: p, Where: "true"}}}
	}
	for _, c := range []struct {
		spec  api.MirrorSpec
		wrong bool
		hint  string
	}{
		{spec: exclude("public.Users.email")},
		{spec: exclude("*.*.*mail")},
		{spec: exclude(`app."a.b"."x y"`)}, // not mirrored, but there
		{spec: exclude("public.Users.emial"), wrong: true, hint: "did you mean public.Users.email?"},
		{spec: exclude("public.users.email"), wrong: true, hint: "did you mean public.Users.email?"},
		{spec: exclude(`app."a.b"."xy"`), wrong: true, hint: `did you mean app."a.b"."x y"?`},
		{spec: exclude("*.*.secret"), wrong: true},
		{spec: exclude("public.leaf.id"), wrong: true},
		{spec: filter("public.Users")},
		{spec: filter("publi.Users"), wrong: true, hint: "did you mean public.Users?"},
		{spec: filter("public.leaf"), wrong: true}, // its rows come under the name of its root
	} {
		err := compile(t, c.spec).Check(tables, columns)
		e, _ := errs.As(err)
		if c.wrong != errs.Is(err, errs.BadPattern) || e != nil && c.hint != "" && e.Hint != c.hint {
			t.Errorf("%v %v: %v", c.spec.Exclude, c.spec.Filters, err)
		}
	}
	s := compile(t, api.MirrorSpec{Except: []string{"public.root,public.tmp_*"}, Routes: []api.Route{{From: "app.*", To: "b.*"}, {From: "ap.*", To: "b.*"}}})
	if got := s.Idle(tables); !slices.Equal(got, []string{"except public.tmp_*", "route ap.*"}) {
		t.Errorf("idle: %q", got)
	}
}

func TestCollisions(t *testing.T) {
	tables := []pg.TableName{{Schema: "a", Name: "t"}, {Schema: "b", Name: "t"}}
	if err := compile(t, api.MirrorSpec{}).Collisions(tables); err != nil {
		t.Error(err)
	}
	err := compile(t, api.MirrorSpec{Routes: []api.Route{{From: "*.*", To: "c.*"}}}).Collisions(tables)
	if !errs.Is(err, errs.BadPattern) || !strings.Contains(err.Error(), `a.t and b.t would both go to "c"."t"`) {
		t.Error(err)
	}
	// A star can bring in a name that no pattern held.
	err = compile(t, api.MirrorSpec{Routes: []api.Route{{From: "a.*", To: "*.x"}}}).Collisions([]pg.TableName{{Schema: "a", Name: "pg_toast"}})
	if !errs.Is(err, errs.BadPattern) {
		t.Error(err)
	}
}

func FuzzNew(f *testing.F) {
	for _, s := range []string{"public.*", `"a.b".c`, "a.[b-", "*.*,x", `a."`, "a.[]", "[!].b", "a.b c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := New(api.MirrorSpec{Tables: []string{text}})
		if err != nil {
			if !errs.Is(err, errs.BadPattern) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		s.Includes("public", "a")
	})
}
