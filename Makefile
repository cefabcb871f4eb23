# `make test` is what has to pass; `make help` lists the rest. Only Go and make are needed: tools are pinned in go.mod,
# and the tests find or fetch the Postgres servers they start.

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# What the race detector watches: everything with goroutines that needs no server. A task has one: what lives in it does not.
RACE := ./coordinator/... ./raft/... ./engine/worker/... ./engine/checkpoint/... ./engine/exchange/... ./engine/state/disk/... ./sql/pgwire/... ./internal/secrets/... ./internal/cli/... ./internal/env/... ./internal/metrics/... ./cmd/...

FUZZTIME ?= 10s
COUNT    ?= 10
SOAK     ?= 20

.PHONY: help build demo test unit chaos race lint docs bench bench-micro fuzz soak clean

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## bin/weir
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/weir ./cmd/weir

demo: build ## show weir at work
	bin/weir demo

test: lint unit race ## everything that has to pass

unit: ## all tests, with real servers and with the invariants checked; they also check that generated docs are current
	$(GO) test -count 1 -tags invariants -timeout 30m ./...

chaos: ## kill -9 at every crash point, and the hostile workload under every fault, alone
	$(GO) test -count 1 -tags invariants -timeout 30m -run '^(TestHostile|TestCrashPoints)$$' ./test/e2e

race: ## the race detector on what has goroutines
	$(GO) test -race -tags invariants -timeout 30m $(RACE)

lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; fi
	$(GO) vet -tags invariants ./...
	$(GO) tool staticcheck -tags invariants ./...

docs: ## write the generated pages anew
	$(GO) run ./cmd/weir docs markdown docs

bench: bench-mirror bench-engine bench-latency bench-micro ## every benchmark

bench-%: build ## the benchmark in test/bench/%: prints a table and writes build/bench/%.json
	@mkdir -p build/bench
	$(GO) run ./test/bench/$* -weir bin/weir -out build/bench/$*.json

bench-micro: ## the packages' own benchmarks, summed up; build/bench/micro.txt keeps them for benchstat
	@mkdir -p build/bench
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./cdc/... ./engine/... ./sinks/... ./internal/... > build/bench/micro.txt || { cat build/bench/micro.txt; exit 1; }
	$(GO) tool benchstat build/bench/micro.txt

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

soak: ## for hours: the simulator SOAK times, random queries, every version of Postgres under the hostile workload, the rest of the race detector
	$(GO) test -tags invariants -count $(SOAK) -timeout 0 ./test/sim/...
	$(GO) test -tags invariants -count 1 -timeout 0 ./test/diff -args -queries 20000 -seed $$(date +%s) -crashes 3
	$(GO) test -tags invariants -count 1 -timeout 0 ./test/e2e -args -soak
	$(GO) test -race -tags invariants -count 1 -timeout 0 ./cdc/... ./sinks/... ./internal/... ./test/sim/... ./test/conform/...
	$(GO) build -race -tags invariants -o build/weir-race ./cmd/weir
	$(GO) test -tags invariants -count 1 -timeout 0 ./test/e2e -args -binary $(CURDIR)/build/weir-race

clean: ## remove what was built
	rm -rf bin build
