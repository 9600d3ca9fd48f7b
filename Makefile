# make test    everything that must hold before a change lands (installs missing Debian packages)
# make build   bin/gaitkeeper and bin/gaitkeeper-device
# make demo    the whole system on this machine, with live video
# make bench   measurements, each as a ratio to a yardstick in the same run
# make soak    STREAMS streams on one processing service, with devices, bus and store as serve has them, and nights of NIGHTS
# make sim     SEEDS worlds of the whole system in which everything goes wrong, on virtual time, and REAL more with real cryptography
# make fuzz    every fuzz target for FUZZTIME each

GO        ?= go
FUZZTIME  ?= 20s
SEEDS     ?= 2000
REAL      ?= 24
BENCHTIME ?= 1s
STREAMS   ?= 1000
NIGHTS    ?= 32
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -X main.version=$(VERSION)

.PHONY: test build demo bench soak sim fuzz packages check clean

test: packages check
	$(GO) test -race -timeout 20m ./...

# What can be said without running anything.
check:
	$(GO) vet ./...
	@bad=$$(gofmt -l .); if [ -n "$$bad" ]; then echo "gofmt -w needed:"; echo "$$bad"; exit 1; fi

packages:
	@scripts/packages.sh

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo:
	$(GO) run ./cmd/gaitkeeper demo $(ARGS)

bench: packages
	@scripts/bench.sh $(BENCHTIME)

soak:
	$(GO) test ./internal/app -run '^$$' -bench 'Fleet|Night' -benchtime 1x -timeout 2h -args -streams $(STREAMS) -nights $(NIGHTS) $(ARGS)

# Every seed is a world of its own; a failing one says how to play it again.
sim:
	$(GO) test ./internal/sim -count=1 -timeout 90m -run 'TestSimulation|TestRealCryptography' -seeds $(SEEDS) -real-seeds $(REAL) -v $(ARGS)

fuzz:
	@scripts/fuzz.sh $(FUZZTIME)

clean:
	rm -rf bin
