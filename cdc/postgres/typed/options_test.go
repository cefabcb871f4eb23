package typed_test

import (
	"maps"
	"testing"

	"github.com/weirstream/weir/cdc/postgres/typed"
)

// TestOptions: Flink CDC's options are taken as they are, and what cannot be is refused before anything is connected.
func TestOptions(t *testing.T) {
	base := map[string]string{"connector": "postgres-cdc", "hostname": "h", "username": "u", "password": "p", "database-name": "d", "table-name": "t"}
	for name, c := range map[string]struct {
		key, value string
		ok         bool
	}{
		"chunk size":         {"scan.incremental.snapshot.chunk.size", "8096", true},
		"no chunk size":      {"scan.incremental.snapshot.chunk.size", "many", false},
		"chunk of nothing":   {"scan.incremental.snapshot.chunk.size", "0", false},
		"Flink's way":        {"scan.incremental.snapshot.enabled", "true", true},
		"fetch size":         {"scan.snapshot.fetch.size", "1024", true},
		"snapshot":           {"scan.startup.mode", "snapshot", true},
		"latest":             {"scan.startup.mode", "latest-offset", true},
		"another mode":       {"scan.startup.mode", "timestamp", false},
		"a heartbeat":        {"heartbeat.interval", "30 s", true},
		"an unknown option":  {"table", "t", false},
		"Debezium's options": {"debezium.plugin.name", "pgoutput", true},
	} {
		t.Run(name, func(t *testing.T) {
			o := maps.Clone(base)
			o[c.key] = c.value
			if err := typed.CheckOptions(o); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	o := maps.Clone(base)
	o["scan.incremental.snapshot.chunk.size"], o["scan.startup.mode"] = "500", "snapshot"
	got, err := typed.FromOptions(base, o)
	if err != nil || got.RangeRows != 500 || !got.SnapshotOnly || got.LatestOffset {
		t.Errorf("got %+v, %v", got, err)
	}
}
