package pg_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/pg"
)

func TestParseJDBC(t *testing.T) {
	for _, c := range []struct{ url, user, password, want string }{
		{"jdbc:postgresql://db:5433/shop", "ann", "", "ann@db:5433/shop "},
		{"jdbc:postgresql://db/shop?user=bob&password=x&reWriteBatchedInserts=true&loginTimeout=3", "", "", "bob@db:5432/shop "},
		{"jdbc:postgresql://db/shop?user=bob&currentSchema=app,public&sslmode=disable", "ann", "p@:/w", "ann@db:5432/shop app"},
		{"jdbc:postgresql:shop", "ann", "", "ann@localhost:5432/shop "},
		{"jdbc:postgresql://a:1,b:2/shop?targetServerType=primary&sslmode=disable", "ann", "", "ann@a:1,b:2/shop "},
		{"postgres://eve:secret@db/shop", "", "", "eve@db:5432/shop "},
		{"postgres://eve:secret@db/shop?sslmode=disable", "a b@c", "", "a b@c@db:5432/shop "},
	} {
		cfg, schema, err := pg.ParseJDBC(c.url, c.user, c.password)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if got := fmt.Sprintf("%s@%s %s", cfg.User(), cfg.Server(), schema); got != c.want {
			t.Errorf("%s is %s, want %s", c.url, got, c.want)
		}
		if c.password != "" && !cfg.HasPassword() {
			t.Errorf("%s: the password is lost", c.url)
		}
	}
	for url, want := range map[string]string{"jdbc:mysql://db/shop": "W6006", "jdbc:oracle:thin:@db": "W6006", "jdbc:postgresql://db:x/shop": "W6002", "jdbc:postgresql://db/shop?user=a&password=hunter2;%zz": "W6002"} {
		_, _, err := pg.ParseJDBC(url, "", "")
		if e, ok := errs.As(err); !ok || string(e.Code) != want || strings.Contains(e.Render(), "hunter2") {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}
