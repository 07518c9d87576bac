# make demo    three machines in network namespaces, an app in containers, a death, a replacement (KEEP=1: they stay)
# make test    everything that must hold: format, clippy, unit and property tests, simulator, lab
# make bench   medians and their spread, beside what is promised (BENCH=--quick for a glance)
# make bench-locks  locks beside etcd's: puts, lock + unlock, many clients, a leader's death (BENCH=--quick for a glance)
# make openb   how well GPUs are packed on a production trace (OPENB=DIR; default ../shared/traces/openb)
# make yardstick  membership beside SWIM, in one virtual network (YARDSTICK=--machines 100 for a glance)
# make soak    ten thousand seeds of the simulator (SEEDS=1..10000 PEERS=20), a million damaged app files, the guest, Spark
# make lab     the lab alone
# make guest   limits under cgroup v2, in a virtual machine (GUEST_ACCEL=kvm where there is one)
# make build   rialtod and rialto, in target/release

TARGET := $(or $(CARGO_TARGET_DIR),target)/release
BENCH ?=
OPENB ?= ../shared/traces/openb
YARDSTICK ?=
SEEDS ?= 1..10000
PEERS ?= 20

.PHONY: build demo test lab guest bench bench-locks openb yardstick soak setup install clean

build: setup
	cargo build --release --workspace

demo: build
	$(TARGET)/demo $(if $(KEEP),--keep)

test: setup
	scripts/test

lab: setup
	scripts/test lab

guest: build
	chaos/guest/run

bench: build
	$(TARGET)/bench $(BENCH)
	cargo test --release --workspace --test executor_speed --test images_speed --test mesh -- --ignored --nocapture

bench-locks: build
	$(TARGET)/bench-locks $(BENCH)

openb: build
	for list in default multigpu50; do \
	  $(TARGET)/openb --nodes $(OPENB)/openb_node_list_gpu_node.csv --tasks $(OPENB)/openb_pod_list_$$list.csv \
	    --bids 8 --lag 0,100,1000 --seeds 10 || exit 1; \
	done

yardstick: build
	$(TARGET)/yardstick $(YARDSTICK)

soak: build
	chaos/guest/run
	cargo test --release --workspace --test executor_hands -- --ignored --nocapture
	cargo test --release --workspace --test lab -- --ignored --nocapture lab_
	RIALTO_MUTATIONS=1000000 cargo test --release --workspace --test compose -- mutations --nocapture
	$(TARGET)/yardstick --machines 1000 --hour --only hour --ours
	$(TARGET)/sim --seeds $(SEEDS) --peers $(PEERS)
	$(TARGET)/locks-sim --seeds $(SEEDS)
	cargo test --release --workspace --test lab -- --ignored histories --nocapture

setup:
	@scripts/setup

install: build
	install -D -m 755 $(TARGET)/rialtod $(DESTDIR)/usr/local/bin/rialtod
	install -D -m 755 $(TARGET)/rialto $(DESTDIR)/usr/local/bin/rialto

clean:
	cargo clean
