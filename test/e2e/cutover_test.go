package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weirstream/weir/internal/failpoint"
)

// served is a mirror of public.* in a process that outlives its failures.
func served(t *testing.T, src, dst db, args ...string) *mirror {
	t.Helper()
	m := newMirror(t, src, dst, "public.*", args...)
	m.start()
	m.caughtUp()
	m.stop()
	m.server()
	m.caughtUp()
	return m
}

// cutsOver repeats a cut-over until the sessions of the test have left the source.
func (m *mirror) cutsOver() (says string) {
	m.t.Helper()
	eventually(m.t, waitLimit, "the cut-over is done", func() (bool, string) {
		out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes")
		says = out + errOut
		return code == 0, says
	})
	return says
}

// cutOverDies has a cut-over killed before its last step.
func (m *mirror) cutOverDies() {
	m.t.Helper()
	m.t.Setenv("WEIR_FAILPOINTS", "cutover.settled=kill")
	eventually(m.t, waitLimit, "the cut-over is killed", func() (bool, string) {
		out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes", "--force")
		return code != 0 && strings.Contains(errOut, failpoint.ErrKill.Error()), out + errOut
	})
	m.t.Setenv("WEIR_FAILPOINTS", "")
}

// TestCutoverDefaults: the first row that an application inserts behind a cut-over gets the next number, whoever's
// sequence that comes from, and what the target lacks is told.
func TestCutoverDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		schema string
	}{"own names": {nil, "public"}, "routed": {[]string{"--route", "public.*=app.*"}, "app"}} {
		t.Run(name, func(t *testing.T) {
			src, dst := pair(t, 15, 15)
			src.exec(t, `CREATE SEQUENCE sq`, `CREATE TABLE z(id int PRIMARY KEY DEFAULT nextval('sq'), v text)`,
				`CREATE TABLE own(id serial PRIMARY KEY)`, `CREATE TABLE a(id int PRIMARY KEY DEFAULT nextval('own_id_seq'), v text)`,
				`CREATE TABLE goes(id serial PRIMARY KEY)`, `CREATE TABLE stays(id int PRIMARY KEY, v int DEFAULT nextval('goes_id_seq'))`,
				`INSERT INTO z(v) SELECT 'v' FROM generate_series(1, 5)`, `INSERT INTO own DEFAULT VALUES`, `INSERT INTO a(v) VALUES ('x')`)
			m := served(t, src, dst, c.args...)
			src.exec(t, `CREATE SCHEMA ids`, `CREATE SEQUENCE ids.n START 50`,
				`CREATE TABLE late(id int PRIMARY KEY DEFAULT nextval('ids.n'), o int DEFAULT nextval('own_id_seq'))`, `INSERT INTO late DEFAULT VALUES`,
				`DROP TABLE goes CASCADE`, `INSERT INTO stays VALUES (1, 1)`,
				`CREATE SEQUENCE new`, `ALTER TABLE a ADD COLUMN n int DEFAULT nextval('new')`, `INSERT INTO a(v) VALUES ('y')`)
			m.caughtUp()
			const want = `column "n" of "S"."a": CREATE SEQUENCE IF NOT EXISTS "public"."new"`
			if out, errOut, _ := m.cli("mirror", "cutover", m.name, "--dry-run"); !strings.Contains(out, strings.ReplaceAll(want, `"S"`, `"`+c.schema+`"`)) || !strings.Contains(out, `ALTER COLUMN "n" SET DEFAULT nextval('"public"."new"'::regclass);`) {
				t.Errorf("the dry run does not tell the default that is not there:\n%s%s", out, errOut)
			}
			if says := m.cutsOver(); !strings.Contains(says, "1 columns lack") || strings.Contains(says, "✓ defaults") {
				t.Errorf("the cut-over says\n%s", says)
			}
			// Three tables draw from the sequence of own.
			for _, x := range [][2]string{{`z(v) VALUES ('first') RETURNING id`, "6"}, {`own DEFAULT VALUES RETURNING id`, "5"},
				{`a(v) VALUES ('first') RETURNING id`, "6"}, {`late DEFAULT VALUES RETURNING id || ' ' || o`, "51 7"}} {
				if got := dst.one(t, `INSERT INTO `+c.schema+`.`+x[0]); got != x[1] {
					t.Errorf("%s: %s, want %s", x[0], got, x[1])
				}
			}
		})
	}
}

// TestCutoverForeignKeys: with a role that may not turn them off, foreign keys are made to wait for the commit, and the
// cut-over gives them back what the source has, or ends without having changed anything.
func TestCutoverForeignKeys(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE p(id int PRIMARY KEY)`, `CREATE TABLE c(id int PRIMARY KEY, p int CONSTRAINT plain REFERENCES p, q int CONSTRAINT acts REFERENCES p ON DELETE CASCADE)`,
		`INSERT INTO p SELECT generate_series(1, 10)`, `INSERT INTO c SELECT i, i, i FROM generate_series(1, 10) i`)
	m := served(t, src, limited(t, dst))
	const keys = `SELECT string_agg(pg_get_constraintdef(oid), '; ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'`
	const waiting = `FOREIGN KEY (q) REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED; FOREIGN KEY (p) REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED`
	if got := dst.one(t, keys); got != waiting {
		t.Fatalf("made with %s", got)
	}
	out, _, _ := m.cli("mirror", "cutover", m.name, "--dry-run")
	for _, want := range []string{`ALTER TABLE "public"."c" ALTER CONSTRAINT "plain" NOT DEFERRABLE`, `DROP CONSTRAINT "acts", ADD CONSTRAINT "acts" FOREIGN KEY ("q") REFERENCES "public"."p" ("id") ON DELETE CASCADE`} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run does not list %s:\n%s", want, out)
		}
	}
	dst.exec(t, `CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN IF current_query() LIKE ''%NOT DEFERRABLE%'' THEN RAISE ''not now''; END IF; END'`,
		`CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION refuse()`)
	out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes", "--force")
	if code == 0 || !strings.Contains(errOut, "W4005") || !strings.Contains(errOut, "not now") || !strings.Contains(errOut, "nothing was changed or detached") {
		t.Errorf("a refusal: exit code %d\n%s%s", code, out, errOut)
	}
	if got := dst.one(t, keys); got != waiting {
		t.Errorf("a cut-over that failed left %s", got)
	}
	src.exec(t, `INSERT INTO p VALUES (11)`)
	m.caughtUp()
	dst.exec(t, `DROP EVENT TRIGGER refuse`)
	m.cutsOver()
	if want, got := src.one(t, keys), dst.one(t, keys); got != want {
		t.Errorf("behind the cut-over %s, want %s", got, want)
	}
}

// TestCutoverKilled: a cut-over that dies when foreign keys have what the source's have leaves a mirror that is paused.
// When it goes on, their actions do not act on what the source has sent the effects of.
func TestCutoverKilled(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE p(id int PRIMARY KEY)`, `CREATE TABLE c(id int PRIMARY KEY, p int CONSTRAINT plain REFERENCES p, q int CONSTRAINT acts REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE)`,
		`INSERT INTO p SELECT generate_series(1, 10)`, `INSERT INTO c SELECT i, NULL, i FROM generate_series(1, 10) i`)
	m := served(t, src, limited(t, dst), "--set", "on.missing.row=error")
	const keys = `SELECT string_agg(pg_get_constraintdef(oid), '; ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'`
	eventually(t, waitLimit, "the foreign keys are there", func() (bool, string) {
		got := dst.one(t, `SELECT count(*) FROM pg_constraint WHERE contype = 'f'`)
		return got == "2", got
	})
	waiting := dst.one(t, keys)
	m.cutOverDies()
	if got, want := dst.one(t, keys), src.one(t, keys); got != want {
		t.Fatalf("the cut-over was killed at %s, want %s", got, want)
	}
	src.exec(t, `INSERT INTO p VALUES (11)`, `INSERT INTO c VALUES (11, 11, 11)`, `DELETE FROM p WHERE id = 3`, `UPDATE p SET id = 40 WHERE id = 4`)
	if _, errOut, code := m.cli("mirror", "cutover", m.name, "--yes", "--force"); code != 10 || !strings.Contains(errOut, "weir pipelines resume "+m.name) {
		t.Errorf("exit code %d of another cut-over\n%s", code, errOut)
	}
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()
	requireEqual(t, src, dst)
	if got := dst.one(t, keys); got != waiting {
		t.Errorf("the mirror goes on with %s, want %s", got, waiting)
	}
	m.cutsOver()
	if want, got := src.one(t, keys), dst.one(t, keys); got != want {
		t.Errorf("behind the cut-over %s, want %s", got, want)
	}
	requireEqual(t, src, dst)
}

// TestCutoverOfHaltedMirror: nobody waits for a mirror that stands still.
func TestCutoverOfHaltedMirror(t *testing.T) {
	refused := func(t *testing.T, m *mirror, limit time.Duration, want ...string) {
		t.Helper()
		began := time.Now()
		out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes", "--force")
		for _, w := range append(want, "weir pipelines resume "+m.name) {
			if code != 10 || !strings.Contains(errOut, w) {
				t.Fatalf("exit code %d, want 10 and %q\n%s%s", code, w, out, errOut)
			}
		}
		if took := time.Since(began); took > limit {
			t.Errorf("it took %v to say so", took)
		}
	}
	src, dst := pair(t, 15, 15)
	src.exec(t, twoTables)
	m := served(t, src, dst)
	m.mustCLI("pipelines", "pause", m.name, "--wait")
	refused(t, m, 20*time.Second, "error[W3004]", "is paused")
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()

	// It fails while the cut-over waits: the target's table is locked until then.
	dst.exec(t, `INSERT INTO a VALUES (5000, 'not of the source')`)
	lock, err := pgx.Connect(t.Context(), dst.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close(context.Background()) }()
	if _, err := lock.Exec(t.Context(), `BEGIN; LOCK TABLE a`); err != nil {
		t.Fatal(err)
	}
	src.exec(t, `INSERT INTO a VALUES (5000, 'in the way')`)
	unlocked := make(chan time.Time, 1)
	go func() {
		<-time.After(4 * time.Second)
		if _, err := lock.Exec(context.Background(), `ROLLBACK`); err != nil {
			t.Error(err)
		}
		unlocked <- time.Now()
	}()
	refused(t, m, 60*time.Second, "error[W4003]", "pipeline "+m.name+" has failed", "weir sources refresh TABLE")
	select {
	case at := <-unlocked:
		if took := time.Since(at); took > 15*time.Second {
			t.Errorf("the cut-over ended %v behind what the mirror fails with", took)
		}
	default:
		t.Error("the cut-over ended before the mirror could fail")
	}
	refused(t, m, 20*time.Second, "error[W4003]", "pipeline "+m.name+" has failed")
}

// TestCutoverNames: under a route indexes and sequences have names of weir's own until the cut-over, and again when it dies
// and the mirror goes on.
func TestCutoverNames(t *testing.T) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE a(id bigserial PRIMARY KEY, i int GENERATED ALWAYS AS IDENTITY, v text CONSTRAINT once UNIQUE); CREATE INDEX "by v" ON a(v, i)`,
		`INSERT INTO a(v) SELECT 'v' || i FROM generate_series(1, 10) i`)
	dst.exec(t, `CREATE SCHEMA s; CREATE TABLE s."by v"(id int)`, `GRANT ALL ON SCHEMA s TO public`) // this name is not free
	m := served(t, src, limited(t, dst), "--set", "on.missing.row=error", "--route", "public.*=s.*")
	const names = `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind IN ('i', 'S') AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 's'))`
	eventually(t, waitLimit, "the indexes are there", func() (bool, string) {
		got := dst.one(t, `SELECT count(*) FROM pg_index WHERE indrelid = 's.a'::regclass`)
		return got == "3", got
	})
	given := dst.one(t, names)
	m.cutOverDies()
	src.exec(t, `INSERT INTO a(v) VALUES ('more')`)
	m.mustCLI("pipelines", "resume", m.name)
	m.caughtUp()
	if got := dst.one(t, names); got != given {
		t.Errorf("the mirror goes on with %s, want %s", got, given)
	}
	m.cutsOver()
	want := strings.ReplaceAll(src.one(t, names), "by v", "")
	if got := dst.one(t, names); strings.Contains(got, "once_") || strings.Contains(got, "a_id_seq_") || !strings.Contains(got, "by v_") {
		t.Errorf("behind the cut-over %s, want %s and one of its own", got, want)
	}
	dst.exec(t, `SET search_path = s; INSERT INTO a(id, v) VALUES (nextval('a_id_seq'), 'v1') ON CONFLICT ON CONSTRAINT once DO NOTHING`, `INSERT INTO s.a(v) VALUES ('new')`)
	if got := dst.one(t, `SELECT count(*) FROM s.a`); got != "12" {
		t.Errorf("%s rows", got)
	}
}

// TestCutoverWhileWritten: somebody writes in sessions that are too short to be seen. What the mirror has not brought is
// noticed; with --force the sequences know the numbers of all rows that it has.
func TestCutoverWhileWritten(t *testing.T) {
	for name, statement := range map[string]string{"inserts": `INSERT INTO ch(v) VALUES ('t')`, "updates": `UPDATE ch SET v = v || 'x' WHERE id = 5`} {
		t.Run(name, func(t *testing.T) { cutOverWhile(t, statement, name == "inserts") })
	}
}

func cutOverWhile(t *testing.T, statement string, inserts bool) {
	src, dst := pair(t, 15, 15)
	src.exec(t, `CREATE TABLE ch(id bigserial PRIMARY KEY, v text); INSERT INTO ch(v) SELECT 'a' FROM generate_series(1, 200)`)
	m := served(t, src, dst)
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			if conn, err := pgx.Connect(ctx, src.url); err == nil {
				_, _ = conn.Exec(ctx, statement)
				_ = conn.Close(context.Background())
			}
			<-time.After(20 * time.Millisecond)
		}
	})
	refused := false
	eventually(t, waitLimit, "the cut-over notices", func() (bool, string) {
		out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes")
		refused = strings.Contains(errOut, "sequences went on") || strings.Contains(errOut, "behind what the target has")
		return refused || code == 0, out + errOut
	})
	if !refused {
		t.Error("the cut-over went through while somebody wrote")
	} else {
		out, errOut, code := m.cli("mirror", "cutover", m.name, "--yes", "--force")
		if code != 0 || !strings.Contains(out+errOut, "will not come any more") || inserts && !strings.Contains(out+errOut, "set again") {
			t.Errorf("exit code %d\n%s%s", code, out, errOut)
		}
	}
	stop()
	writer.Wait()
	if got := dst.one(t, `SELECT (SELECT max(id) FROM ch) <= (SELECT last_value FROM ch_id_seq)`); got != "true" && got != "t" {
		t.Errorf("behind the cut-over rows have numbers that the sequence gives again")
	}
}
