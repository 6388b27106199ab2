#!/usr/bin/env bash
# Runs the tests whose name contains the first argument, of every kind.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/testing.sh
source "$(dirname "$0")/testing.sh"

filter=${1:-}
[[ -n $filter ]] || die "name the tests: make test-one T=part_of_a_name"

"$ROOT/scripts/build.sh"
test_environment
phase "Tests named *$filter*" all_tests -- "$filter"
summary
