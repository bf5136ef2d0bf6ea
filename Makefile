# The index of all commands. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-coord build build-debug servers test test-nodes hard lint format bench bench-etcd bench-coord bench-backends faults test-faults docs clean
MAKEFLAGS += --no-print-directory

help: ## Lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Installs what a machine lacks, for everything below
	@scripts/setup test

demo: build ## Builds and runs the demonstration; needs no server
	@node examples/demo.mjs

demo-coord: build ## Builds and runs the demonstration of configuration, on an etcd that it starts and kills
	@scripts/servers etcd
	@node examples/demo-coord.mjs --etcd servers/bin/etcd

build: ## Builds the addon (release) and the TypeScript
	@scripts/setup build
	@npm run --silent build

build-debug: ## Builds the addon without optimization, and the TypeScript
	@scripts/setup build
	@npm run --silent build:native:debug
	@npm run --silent build:ts

servers: ## Builds and installs the servers that the tests start
	@scripts/setup test

test: ## Runs everything that must hold: set-up, lint, build, all tests; the last line has the counts: [ONLY=consul]
	@scripts/test

test-nodes: build ## Runs units, packaging, one backend and applications of Nest and Midway on Node 22, 24 and 26
	@scripts/setup test
	@node scripts/nodes.mjs 22 24 26

hard: build ## Runs the hard tests in their full size, about thirty-five minutes; `make test` has them in a small one
	@scripts/setup test
	@ROUNDS=1000 npm test -- __test__/conformance/traffic.test.ts -t 'leave no lease'
	@ROUNDS=50 npm test -- __test__/faults/kubernetes.test.ts -t 'killed and started'
	@OUTAGES=100 NAMES=20000 CROWD=6 npm test -- __test__/faults/zookeeper-session.test.ts __test__/faults/consul-load.test.ts
	@OUTAGE_MS=60000 npm test -- __test__/http/fleet.test.ts __test__/grpc/fleet.test.ts -t outage
	@NODES=22,24,26 npm test -- __test__/http/undici.test.ts
	@NAMES=10000 CHANGES=1000 SHARE_MS=10000 npm test -- __test__/grpc/resolver.test.ts -t 'dialled|changes|fair share'
	@FREEZES=10 npm test -- __test__/http/fleet.test.ts -t 'another one that is frozen'
	@SIZE=full npm test -- __test__/coord/last-good.test.ts __test__/coord/hard.test.ts __test__/coord/faults.test.ts __test__/coord/zookeeper.test.ts __test__/coord/locks-faults.test.ts __test__/coord/cron-faults.test.ts __test__/coord/elections.test.ts __test__/uid/hard.test.ts __test__/once/hard.test.ts __test__/ratelimit/hard.test.ts
	@TYPES=all npm test -- __test__/packaging/types.test.ts
	@scripts/lint alone

lint: ## Checks format, lint, types and licences
	@scripts/setup tools
	@scripts/lint

format: ## Formats everything
	@scripts/setup build
	@cargo fmt --all
	@npm run --silent format
	@if command -v gofmt >/dev/null; then gofmt -w servers; fi

bench: build ## Measures, against the incumbent, on a real etcd
	@scripts/setup test
	@node bench/run.mjs
	@node bench/etcd/run.mjs --runs 3 --ms 200

bench-etcd: build ## Measures rollcall/etcd, etcd3 and Rust in turns; writes docs/bench-etcd.md
	@scripts/setup test
	@node bench/etcd/run.mjs --docs

bench-coord: build ## Measures coord and its recipes, beside Go's and others; writes docs/bench-coord.md
	@scripts/servers etcd peer
	@node bench/run.mjs --only coord,locks,breaker,uid,once,ratelimit --docs

bench-backends: build ## Measures the registries side by side; writes docs/bench-backends.md
	@scripts/setup test
	@node bench/run.mjs --only backends --docs

faults: build ## A seeded fault run with a checker: [MINUTES=3] [SEED=7 or 1-10] [BACKEND=etcd|consul|zookeeper] [NAIVE=1]
	@scripts/setup test
	@MINUTES=$(MINUTES) SEED=$(SEED) BACKEND=$(BACKEND) NAIVE=$(NAIVE) node faults/run.mjs

test-faults: build ## Runs only the tests that kill, freeze and cut off servers
	@scripts/setup test
	@npm test -- __test__/faults

docs: ## Builds the API documentation: of the package into build/api, of the Rust core into target/doc
	@scripts/setup build
	@node scripts/docs/build.mjs
	@cargo doc --locked --workspace --no-deps

clean: ## Deletes what was built; keeps npm packages, test servers and tools
	rm -rf dist target *.node build/test-results build/dist-* build/api
