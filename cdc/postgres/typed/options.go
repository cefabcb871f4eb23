package typed

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirstream/weir/internal/errs"
	"github.com/weirstream/weir/internal/nearest"
	"github.com/weirstream/weir/internal/pg"
)

// The options of a table WITH ('connector' = 'postgres-cdc'), with the names of Flink CDC's connector of that name. `url`
// is ours: a Postgres URL in place of hostname, port, username, password and database-name. `connection`, a name that
// CREATE CONNECTION has made, is resolved to a url by whoever knows the names.
const (
	optURL, optHostname, optPort, optUsername = "url", "hostname", "port", "username"
	optPassword, optDatabase                  = "password", "database-name"
	optSchema, optTable                       = "schema-name", "table-name"
	optSlot, optPublication                   = "slot.name", "publication.name"
	optPlugin, optStartup, optHeartbeat       = "decoding.plugin.name", "scan.startup.mode", "heartbeat.interval"
	optChunk                                  = "scan.incremental.snapshot.chunk.size"
)

// startupSnapshot is the mode in which the source ends behind the first copy.
const startupSnapshot = "snapshot"

// Bounded tells whether the source ends by itself.
func Bounded(o map[string]string) bool { return o[optStartup] == startupSnapshot }

// known are the options that mean something here.
func known() []string {
	return []string{"connector", "connection", optURL, optHostname, optPort, optUsername, optPassword, optDatabase, optSchema, optTable, optSlot,
		optPublication, optPlugin, optStartup, optHeartbeat, optChunk}
}

// passedOver are options of Flink CDC that a file may hold and that change nothing here: they tune its own way to copy and
// to connect.
func passedOver(key string) bool {
	return strings.HasPrefix(key, "scan.incremental.snapshot.") || strings.HasPrefix(key, "debezium.") || strings.HasPrefix(key, "chunk-key.") ||
		slices.Contains([]string{"scan.snapshot.fetch.size", "connect.timeout", "connect.max-retries", "connection.pool.size", "changelog-mode",
			"heartbeat.interval.ms", "scan.lsn-commit.checkpoints-num-delay", "scan.newly-added-table.enabled", "split-key.even-distribution.factor.upper-bound",
			"split-key.even-distribution.factor.lower-bound"}, key)
}

// CheckOptions refuses options that are not known, or have values that cannot be.
func CheckOptions(o map[string]string) *errs.Error {
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if slices.Contains(known(), key) || passedOver(key) {
			continue
		}
		e := errs.New(errs.SQLConnector, "postgres-cdc has no option '%s'", key)
		if hint := nearest.Hint(key, known()); hint != "" {
			return e.WithHint("%s", hint)
		}
		return e.WithHint("it has %s", strings.Join(known()[1:], ", "))
	}
	if o[optTable] == "" {
		return errs.New(errs.SQLConnector, "postgres-cdc needs 'table-name'")
	}
	if v := o[optPlugin]; v != "" && v != "pgoutput" && v != "decoderbufs" { // the latter is Flink's default, written out
		return errs.New(errs.SQLConnector, "'decoding.plugin.name' is pgoutput, which every server has, not '%s'", v)
	}
	switch v := o[optStartup]; v {
	case "", "initial", "latest-offset", startupSnapshot:
	default:
		return errs.New(errs.SQLConnector, "'scan.startup.mode' is initial, latest-offset or snapshot, not '%s'", v)
	}
	if v := o[optChunk]; v != "" {
		if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < 1 {
			return errs.New(errs.SQLConnector, "'%s' is a number of rows, not '%s'", optChunk, v)
		}
	}
	if v := o[optHeartbeat]; v != "" {
		if d, err := time.ParseDuration(strings.ReplaceAll(v, " ", "")); err != nil || d <= 0 {
			return errs.New(errs.SQLConnector, "'heartbeat.interval' is a time such as 30s, not '%s'", v)
		}
	}
	_, err := Connection(o)
	if err == nil || o["connection"] != "" || referring(o) {
		return nil
	}
	return errs.From(err, errs.SQLConnector)
}

// Connection is where the options say that the database is.
func Connection(o map[string]string) (*pg.Config, error) {
	if given := o[optURL]; given != "" {
		for _, key := range []string{optHostname, optPort, optDatabase} {
			if o[key] != "" {
				return nil, errs.New(errs.SQLConnector, "'url' and '%s' both say where the database is", key).WithHint("leave one of them out")
			}
		}
		cfg, err := pg.ParseURL(given)
		if err == nil && o[optPassword] != "" {
			cfg.SetPassword(o[optPassword])
		}
		return cfg, err
	}
	for _, key := range []string{optHostname, optUsername, optDatabase} {
		if o[key] == "" {
			return nil, errs.New(errs.SQLConnector, "postgres-cdc needs '%s'", key).WithHint("or 'url' = 'postgres://USER@HOST:PORT/DATABASE', or 'connection' = a name that CREATE CONNECTION has made")
		}
	}
	port := o[optPort]
	if port == "" {
		port = "5432"
	}
	u := url.URL{Scheme: "postgres", User: url.User(o[optUsername]), Host: net.JoinHostPort(o[optHostname], port), Path: "/" + o[optDatabase]}
	cfg, err := pg.ParseURL(u.String())
	if err == nil {
		cfg.SetPassword(o[optPassword])
	}
	return cfg, err
}

// Group tells tables of one database from those of others: they are read by one Source.
func Group(o map[string]string) string {
	if c := o["connection"]; c != "" {
		return "connection " + c
	}
	cfg, err := Connection(o)
	if err != nil || referring(o) {
		return o[optURL] + o[optHostname] + ":" + o[optPort] + "/" + o[optDatabase] // what it refers to is not known yet
	}
	return cfg.Server()
}

// referring tells that where the database is stands in the environment or among the secrets.
func referring(o map[string]string) bool {
	for _, key := range []string{optURL, optHostname, optPort, optDatabase} {
		if strings.Contains(o[key], "${env:") {
			return true
		}
	}
	return strings.HasPrefix(o[optURL], "${")
}

// Named are the table's schema and name in the database.
func Named(o map[string]string) (schema, name string) {
	if schema = o[optSchema]; schema == "" {
		schema = "public"
	}
	return schema, o[optTable]
}

// FromOptions are the Options that the tables of a Group give together, except their Tables: what one of them sets holds
// for all. Slot and Publication are empty unless they are set; whoever knows the installation's name gives them theirs.
func FromOptions(tables ...map[string]string) (Options, error) {
	all := map[string]string{}
	for _, o := range tables {
		for key, value := range o {
			if slices.Contains([]string{optSchema, optTable}, key) {
				continue
			}
			if have, ok := all[key]; ok && have != value && slices.Contains([]string{optSlot, optPublication, optStartup}, key) {
				return Options{}, errs.New(errs.SQLConnector, "tables of one database have '%s' = '%s' and '%s'", key, have, value).
					WithHint("one reader reads all tables of a database, at one position: give them the same")
			}
			all[key] = value
		}
	}
	cfg, err := Connection(all)
	if err != nil {
		return Options{}, err
	}
	out := Options{Config: cfg, Slot: all[optSlot], Publication: all[optPublication], LatestOffset: all[optStartup] == "latest-offset", SnapshotOnly: all[optStartup] == startupSnapshot}
	if out.Publication == "" {
		out.Publication = all["debezium.publication.name"]
	}
	out.KeepPublication = out.Publication != ""
	if v := all[optChunk]; v != "" {
		if out.RangeRows, err = strconv.ParseInt(v, 10, 64); err != nil {
			return Options{}, errs.New(errs.SQLConnector, "'%s' is a number of rows, not '%s'", optChunk, v)
		}
	}
	if v := all[optHeartbeat]; v != "" {
		if out.HeartbeatPeriod, err = time.ParseDuration(strings.ReplaceAll(v, " ", "")); err != nil {
			return Options{}, errs.New(errs.SQLConnector, "'heartbeat.interval' is a time such as 30s, not '%s'", v)
		}
	}
	return out, nil
}
