#!/usr/bin/env bash
# Runs the tests from outside on each store: test-stores.sh [STORE…], of local, garage, garage3 and ceph. FILES names the
# files of tests/tests to run instead of all. The last lines say for each store how many tests passed and failed, how many
# of them had a local store (docs/stores.md says which and why), and how often a lack that check() reports was asserted.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/testing.sh
source "$(dirname "$0")/testing.sh"

stores=("$@")
((${#stores[@]})) || stores=(local garage garage3 ceph)
read -ra files <<<"${FILES:-$(client_test_files)}"

"$ROOT/scripts/garage.sh"
"$ROOT/scripts/ceph.sh"
"$ROOT/scripts/web.sh"
"$ROOT/scripts/build.sh"
test_environment

lines=()
for store in "${stores[@]}"; do
  PASSED=0 FAILED=0
  log=$(mktemp)
  phase "Running the tests on $store" store_tests "$store" "${files[@]}" > >(tee "$log") 2>&1
  stayed=$(grep '^stays on the local store: ' "$log" | sed 's/^stays on the local store: \([^ ]*\): .*/\1/' | sort -u | wc -l)
  lacks=$(grep -c '^reported lack: ' "$log" || :)
  rm -f "$log"
  lines+=("$(printf '%-8s %4d passed, %d failed, %d stayed on the local store, %d reported lacks' "$store" "$PASSED" "$FAILED" "$stayed" "$lacks")")
done
say "Summary"
printf '%s\n' "${lines[@]}"
((${#BROKEN[@]} == 0))
