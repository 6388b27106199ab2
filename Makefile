# Every target is a small script under scripts/; `make` alone lists them.
# Variables: PG_MAJOR (15), PROFILE (dev), PGPORT, PG_CONFIG and DESTDIR (of make install), T (a name), SECONDS (of make fuzz), ROWS and others (of make bench), S3_* (the store of `make up`).

.DEFAULT_GOAL := help
.PHONY: help demo test test-one test-stores fuzz up down url psql bench bench-record lint build install install-deps garage ceph web clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST))

demo: ## install what is missing, build, and do the main job on real files in a throw-away cluster
	@scripts/demo.sh

test: ## install what is missing, build, and run every test
	@scripts/test.sh

test-one: ## run the tests whose name contains T, for example: make test-one T=cluster
	@scripts/test-one.sh "$(T)"

test-stores: ## run the tests from outside on each store in turn: local, garage, garage3, ceph (an hour on two cores)
	@scripts/test-stores.sh

fuzz: ## fuzz one target for a while, for example: make fuzz T=parsers SECONDS=60
	@scripts/fuzz.sh "$(T)" "$(SECONDS)"

bench: ## measure in a release build, against what it could not be faster than, and print one table (half an hour)
	@scripts/bench.sh

bench-record: ## the same, written to docs/benchmarks.md
	@scripts/bench.sh --record

up: ## build, start (or refresh) the development cluster and print its URL
	@scripts/up.sh

down: ## stop the development cluster; its data stays
	@scripts/down.sh

url: ## print the development cluster's URL for a superuser (make -s url prints nothing else)
	@scripts/url.sh

psql: ## open psql on the development cluster
	@scripts/psql.sh

lint: ## formatting, clippy, rustdoc, shellcheck and cargo-deny, warnings as errors
	@scripts/lint.sh

build: ## build the extension and install it into the private PostgreSQL tree
	@scripts/build.sh

install: ## build an optimised library and install it into this machine's PostgreSQL, or below DESTDIR
	@scripts/install.sh

install-deps: ## install the Debian packages and cargo-pgrx when they are missing
	@scripts/install-deps.sh

garage: ## build the Garage S3 server for the tests when it is missing
	@scripts/garage.sh

ceph: ## install the Debian packages of Ceph for the tests when they are missing
	@scripts/ceph.sh

web: ## install Chromium and the Node.js packages of the tests with web clients when they are missing
	@scripts/web.sh

clean: ## stop the development cluster and remove everything built or created here
	@scripts/clean.sh
