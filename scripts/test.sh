#!/usr/bin/env bash
# Every test: unit, client-side against real clusters, the local store, Garage and Ceph, and in-server. Installs and builds
# what is missing first. The last line says how many passed and failed.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/testing.sh
source "$(dirname "$0")/testing.sh"

"$ROOT/scripts/install-deps.sh"
"$ROOT/scripts/garage.sh"
"$ROOT/scripts/ceph.sh"
"$ROOT/scripts/web.sh"
"$ROOT/scripts/build.sh"
test_environment

phase "Building the tests" all_tests --no-run
if ((${#BROKEN[@]} == 0)); then phase "Running the tests" all_tests; fi
# What uploads, deletions and files ask of a store, where one of three nodes comes and goes, and on Ceph. All of it on each
# store takes an hour: make test-stores.
part=(flow verdicts dedup collector bulk files_api moves access caching)
for store in garage3 ceph; do
  if ((${#BROKEN[@]} == 0)); then phase "Running a part of them on $store" store_tests "$store" "${part[@]}"; fi
done

# The guardians of the harness clean up after the test processes end, crashed ones included.
for ((attempt = 0; attempt < 300; attempt++)); do
  left=$(find "$PG_STORAGE_RUN_DIR" -mindepth 1 -maxdepth 1)
  [[ -n $left ]] || break
  sleep 0.2
done
if [[ -n $left ]]; then
  BROKEN+=("clean-up: left behind $left")
  FAILED=$((FAILED + 1))
fi

summary
