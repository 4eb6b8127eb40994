# HALO: table of contents. `make` alone prints it.

export CGO_ENABLED = 0
# For all that is built here, tests too, so that the compiler has each package once.
export GOFLAGS := $(GOFLAGS) -trimpath
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

GO    ?= go
BOARD ?= rpi4b
ROLE  ?= node
NODES ?= 2
OUT   ?= out

# All that building and running needs besides Go, and the peers of the tests:
# Debian packages.
PACKAGES = qemu-system-arm qemu-utils mtools dosfstools e2fsprogs squashfs-tools xz-utils kmod device-tree-compiler git
PEERS    = netbase nftables iproute2 iputils-ping isc-dhcp-client udhcpc busybox ndisc6 bind9-dnsutils dnsmasq-base avahi-daemon ntpsec-ntpdig gpsd-clients

HALO_IMAGE = $(GO) run ./cmd/halo-image

.DEFAULT_GOAL = help
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^#:/ { print substr($$0, 4) } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

#: Try it
.PHONY: run down
run: deps build lab-images ## boot a gateway and NODES=2 nodes and say what to try next
	bin/halo-lab up --nodes $(NODES)

down: ## end what `make run` started
	@if [ -x bin/halo-lab ]; then bin/halo-lab down; fi

#: Cards
.PHONY: image flash
image: deps stamp ## card image: BOARD=rpi4b|rpi3b|zero2w|qemu-virt ROLE=gateway|node
	$(HALO_IMAGE) image --board $(BOARD) --role $(ROLE) --out $(OUT)

flash: dev image build ## an image, written to a card: DEV=/dev/sdX, BUNDLE=file.toml NAME=name FORCE=1 if wanted
	@if [ -w "$(DEV)" ]; then as=; else as=sudo; fi; set -x; \
	$$as bin/halo-image flash --image $(OUT)/halo-$(ROLE)-$(BOARD).img $(if $(BUNDLE),--bundle $(BUNDLE)) $(if $(NAME),--name $(NAME)) $(if $(FORCE),--force) $(DEV)

.PHONY: dev
dev:
	@test -n "$(DEV)" || { echo "make flash: DEV=/dev/sdX is missing: the card to overwrite (lsblk shows them)" >&2; exit 2; }

#: Check
.PHONY: check lint vet static fast race test machines scenarios fuzz bench bench-radio bench-mesh bench-gateway bench-agent soak
check: vet ## format, vet, staticcheck and the fast tests
	@$(MAKE) --no-print-directory -j 2 static fast # the tests wait, while staticcheck works

lint: vet static

vet: stamp # first: what is wrong shows at once, and what it has compiled the others need not
	@fmt=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
		test -z "$$fmt" || { echo "not formatted (gofmt -w):"; echo "$$fmt"; exit 1; }
	$(GO) vet -tags lab,soak ./...

static: stamp
	$(GO) tool staticcheck -tags lab,soak ./...

fast: peers recordings stamp
	$(GO) test -vet off -p 4 ./mesh $$($(GO) list ./... | grep -v '/mesh$$') # they wait more than they work, ./mesh the longest

race: stamp ## the fast tests under the race detector (needs a C compiler; HALO does not)
	CGO_ENABLED=1 $(GO) test -race ./...

# Packages whose tests start machines or build images: four at once, which wait
# more than they work, the longest
# first so that none ends alone, save the network of three machines, which
# needs the host for itself. Their other tests are fast ones, and would take minutes in
# an emulated machine.
LABFILES = $(shell git grep -l '^//go:build lab$$' -- '*_test.go')
LAB = $(sort $(patsubst %/,./%,$(dir $(LABFILES))))
LABTESTS = $(shell grep -ho '^func Test[A-Za-z0-9]*' $(LABFILES) | cut -c6- | sort -u | paste -sd '|')
LONGEST = ./mesh/radio ./mesh/wireless ./mesh/announce ./mesh/port/macsec ./image/boot ./mesh/bridge
NETWORK = ./lab/systemtest
MACHINES = HALO_IMAGES=$(abspath $(OUT)) PATH="$(CURDIR)/bin:$$PATH" $(GO) test -vet off -tags lab -timeout 60m

test: deps peers npm lint ## everything, machines included
	@$(MAKE) --no-print-directory -j 2 fast machines # fast tests wait, while images are built
	$(MACHINES) -p 4 -run '^($(LABTESTS))$$' $(LONGEST) $(filter-out $(LONGEST) $(NETWORK),$(LAB))
	$(MACHINES) $(NETWORK)
	@cat $(OUT)/scenarios-*.txt

# What the tests' machines start from.
machines: build lab-images testvm

scenarios: deps build lab-images ## break networks in many ways, and see how fast they come back: SCENARIOS="node-restart line"
	bin/halo-lab scenario $(or $(SCENARIOS),all) --gateway-image $(OUT)/halo-gateway-qemu-virt.img --node-image $(OUT)/halo-node-qemu-virt.img

fuzz: stamp ## every fuzz test for FUZZTIME=10s
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(or $(FUZZTIME),10s) $$p || exit 1; \
		done; done

bench: deps build lab-images ## the README's figures
	$(GO) test -run '^$$' -bench Size ./model/wire
	$(MACHINES) -p 1 -run '^$$' -bench 'OneMachine|ThreeMachines|Rebuild' -benchtime 3x ./image/pack $(NETWORK)
	$(MACHINES) -run '^$$' -bench Idle -benchtime 1x $(NETWORK)

bench-radio: deps stamp testvm ## the radio's figures, beside wpa_supplicant's in the same machine and run
	$(MACHINES) -run '^$$' -bench RadioPeering -benchtime 50x ./mesh/radio
	$(MACHINES) -run '^$$' -bench RadioCPU -benchtime 10x ./mesh/radio
	$(MACHINES) -run '^$$' -bench MeshMemory -benchtime 1x ./mesh/wireless

# Each in a machine of its own, or in images; a run of it is a start of everything in
# it.
bench-mesh: deps build lab-images testvm ## the mesh's figures, coming into contact beside Debian's programs, RUNS=10 of each
	$(MACHINES) -run '^$$' -bench Contact -benchtime $(or $(RUNS),10)x ./lab/benchmesh
	$(MACHINES) -run '^$$' -bench ThreeMachines/air -benchtime 3x $(NETWORK)
	$(MACHINES) -run '^$$' -bench Overlay -benchtime 30x ./lab/benchmesh
	$(MACHINES) -run '^$$' -bench Airtime -benchtime 1x ./lab/benchmesh
	$(MACHINES) -run '^$$' -bench Reroute -benchtime 3x ./lab/benchmesh
	$(MACHINES) -run '^$$' -bench Resident -benchtime 1x ./lab/benchmesh

bench-agent: stamp ## halo-agent with twenty sensors and a receiver, and the arithmetic of one reading
	$(GO) test -run '^$$' -bench Agent -benchtime 1x ./lab/benchagent
	$(GO) test -run '^$$' -bench BME280 -benchmem ./drivers/i2c

# The server has one core, what plays the nodes another. The card's disk is one that
# counts sectors: it takes root.
bench-gateway: stamp ## the gateway's telemetry, beside VictoriaMetrics and a bare journal, and 250 nodes; RECORDED=file.csv of recorded telemetry
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./lab/benchgateway
	$(GO) test -run '^$$' -bench Day -benchtime 1x -timeout 60m ./gateway/telemetry
	$(GO) test -run '^$$' -bench Topology250 -benchtime 50x ./gateway/topology
	$(GO) test -run '^$$' -bench CommittedToTold -benchtime 1000x ./gateway/live
	$(GO) test -run '^$$' -bench Queries -benchtime 300x -timeout 60m ./gateway/telemetry
	$(if $(RECORDED),HALO_RECORDED=$(abspath $(RECORDED)) $(GO) test -run '^$$' -bench Recorded -benchtime 1x ./gateway/telemetry)

soak: deps build lab-images ## the Pi's image on QEMU's Pi, restarts twenty times, a partition of an hour, faults at random for HALO_SOAK=1h, 1000 kills, 6000 power cuts, malformed requests
	$(MACHINES) -tags lab,soak -count 1 -run TestAPiStarts ./image/pack
	HALO_SOAK=1h $(GO) test -count 1 -timeout 0 -run 'TestNothingAcknowledgedIsLostByKills|TestKilled$$|TestPowerCut$$' -v ./gateway ./gateway/telemetry
	HALO_MALFORMED=$(or $(HALO_MALFORMED),10000) $(GO) test -count 1 -timeout 0 -run TestMalformedRequests -v ./gateway/api
	HALO_SOAK=$(or $(HALO_SOAK),1h) HALO_SCENARIO_RUNS=$(or $(HALO_SCENARIO_RUNS),20) HALO_PARTITION=$(or $(HALO_PARTITION),1h) \
		$(MACHINES) -count 1 -timeout 0 $(NETWORK)
	@cat $(OUT)/scenarios-*.txt

#: Build
.PHONY: deps peers recordings npm stamp build lab-images testvm clean
deps: ## install the Debian packages that are missing
	@$(call install,$(PACKAGES))

peers: ## install those that tests speak to
	@$(call install,$(PACKAGES) $(PEERS))

# What receivers have said, as gpsd's authors have recorded it: part of Debian's source of
# gpsd, which the archive hands out where it hands out packages. Without it that test is
# skipped.
RECORDINGS = .cache/gpsd
recordings: ## fetch recordings of GPS receivers, which tests read
	@test -d $(RECORDINGS)/test/daemon || ! command -v apt-get >/dev/null || { $(fetch-recordings); } || \
		echo "No recordings of GPS receivers: Debian's source of gpsd could not be had" >&2

define fetch-recordings
rm -rf $(RECORDINGS).new && mkdir -p $(RECORDINGS).new/parts $(RECORDINGS).new/lists/partial $(RECORDINGS).new/gpsd && cd $(RECORDINGS).new && \
for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do \
	if [ -e $$f ]; then sed -n '/\/debian/s/^deb /deb-src /p' $$f > parts/$$(basename $$f .list).list; fi; done; \
for f in /etc/apt/sources.list.d/*.sources; do \
	if grep -q '/debian' $$f 2>/dev/null; then sed 's/^Types:.*/Types: deb-src/' $$f > parts/$$(basename $$f); fi; done; \
apt="apt-get -qq -oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts=$$PWD/parts -oDir::State::Lists=$$PWD/lists -oDir::Cache=$$PWD -oAPT::Sandbox::User="; \
$$apt update && $$apt --download-only source gpsd && tar -xf gpsd_*.orig.tar.* -C gpsd --strip-components 1 --wildcards '*/test/daemon/*' && \
cd - >/dev/null && rm -rf $(RECORDINGS) && mv $(RECORDINGS).new/gpsd $(RECORDINGS) && rm -rf $(RECORDINGS).new
endef

npm: ## install npm, from which the linter of the API's document comes, where there is none
	@$(call install,$(if $(shell command -v npm),,nodejs npm))

define install
missing=$$(for p in $(1); do \
	dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
if [ -n "$$missing" ] && ! command -v apt-get >/dev/null; then \
	echo "Not a Debian machine: install what these hold yourself:" $$missing >&2; exit 1; \
elif [ -n "$$missing" ]; then \
	echo "Installing Debian packages:" $$missing; \
	if [ "$$(id -u)" = 0 ]; then as=; else as=sudo; fi; \
	$$as apt-get update -qq && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
fi
endef

stamp: ## write version, commit and build time where every binary embeds them
	@$(HALO_IMAGE) stamp

build: stamp ## the host's binaries, into bin/
	$(GO) build -o bin/ ./cmd/haloctl ./cmd/halo-lab ./cmd/halo-image ./cmd/gateway-api

lab-images: stamp ## the images that the lab boots
	$(HALO_IMAGE) image --board qemu-virt --role gateway --out $(OUT)
	$(HALO_IMAGE) image --board qemu-virt --role node --out $(OUT)

testvm: stamp ## what the machine of the fast lab tests boots
	$(HALO_IMAGE) testvm --out $(OUT)

clean: down ## remove what was built; .cache keeps the kernel
	rm -rf bin $(OUT)
