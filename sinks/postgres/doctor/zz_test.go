package doctor_test
import ("testing";"fmt";"strings"
 "github.com/weirstream/weir/internal/pg"
	testenv "github.com/weirstream/weir/test/env")
func TestZZ(t *testing.T) {
	s := testenv.Postgres(t, 15, testenv.FsyncOff(), testenv.WithSetting("log_min_duration_statement","100ms"), testenv.WithSetting("session_preload_libraries","auto_explain"), testenv.WithSetting("auto_explain.log_min_duration","300ms"), testenv.WithSetting("auto_explain.log_analyze","on"))
	to := s.CreateDatabase(t, "dst")
	for i := range 6 {
			s.Exec(t, testenv.DatabaseOf(t, to), fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE TABLE t%%s (id int PRIMARY KEY, b text)', i); END LOOP; END $$`, i*500, i*500+499))
	}
	opts := planned(t, to, pg.TargetOptions{})
	opts.Source.System=""
	check(t, to, opts)
	l := s.LogTail(400)
	i := strings.Index(l, "SELECT (u.n - 1)")
	if i<0 {i=0}
	fmt.Println(l[max(0,i-3000):])
}
