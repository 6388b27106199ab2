# shellcheck shell=bash
# Sourced after postgres.sh by test.sh and test-one.sh: how the tests are run, and the counting of results.

PASSED=0
FAILED=0
BROKEN=()

# Where the client-side tests find the server, the binaries, Garage, the web clients, and a directory for their clusters.
test_environment() {
  choose_run_dir
  private_tree "pg$PG_MAJOR"
  server_dir "$RUN_DIR/tests"
  export PG_STORAGE_PG_CONFIG=$TREE_PG_CONFIG
  export PG_STORAGE_RUN_DIR=$RUN_DIR/tests
  export PG_STORAGE_GARAGE=$GARAGE_BIN
  export PG_STORAGE_WEB=$WEB_DIR
  export PG_STORAGE_CHROMIUM=$CHROMIUM_BIN
  PG_STORAGE_BIN_DIR=$(profile_dir)
  export PG_STORAGE_BIN_DIR
}

# phase NAME COMMAND…: runs it in full view, adds up its "test result:" lines, remembers whether it failed. A phase that
# failed without a failed test (it did not compile, say) counts as one failure.
phase() {
  local name=$1 log passed failed status=0
  shift
  say "$name"
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=1
  read -r passed failed < <(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$log")
  rm -f "$log"
  if ((status)); then
    BROKEN+=("$name")
    if ((failed == 0)); then failed=1; fi
  fi
  PASSED=$((PASSED + passed))
  FAILED=$((FAILED + failed))
}

# Runs `cargo test` over the whole workspace: unit tests, conformance suites, tests from outside, and the tests compiled
# into the extension. One call for all, because cargo unifies features per call and a second one would build most of the
# dependencies again. For the last kind it does what `cargo pgrx test` does: a variable each for the harness of pgrx,
# which installs the library's test flavour into a PostgreSQL tree of its own and starts a cluster there.
all_tests() (
  local features="pg$PG_MAJOR pg_test"
  private_tree "pg$PG_MAJOR-test"
  pgrx_home "$PGRX_HOME-test" "$TREE_PG_CONFIG"
  server_dir "$RUN_DIR/pgrx-test"
  PG_STORAGE_CARGO_PGRX=$(command -v cargo-pgrx)
  export PG_STORAGE_CARGO_PGRX CARGO_PGRX=$ROOT/scripts/shim/cargo-pgrx PGRX_HOME=$PGRX_HOME-test USER=$SERVER_USER \
    PGRX_FEATURES=$features PGRX_NO_DEFAULT_FEATURES=true PGRX_BUILD_PROFILE=$PROFILE \
    CARGO_PGRX_TEST_PGDATA=$RUN_DIR/pgrx-test
  if ((EUID == 0)); then
    PATH=$ROOT/scripts/shim:$PATH
    export CARGO_PGRX_TEST_RUNAS=$SERVER_USER
  fi
  cargo test --workspace --no-fail-fast --profile "$PROFILE" --no-default-features --features "$features" "$@"
)

# The names of the files with tests from outside.
client_test_files() {
  local path
  for path in "$ROOT"/tests/tests/*; do basename "$path" .rs; done | sort -u | while read -r path; do
    # A folder of helpers has no tests of its own.
    if [[ -e $ROOT/tests/tests/$path.rs || -e $ROOT/tests/tests/$path/main.rs ]]; then printf '%s ' "$path"; fi
  done
}

# store_tests STORE FILE…: the tests of these files with the store of the tests chosen.
store_tests() {
  local store=$1 file
  local -a chosen=()
  shift
  for file in "$@"; do chosen+=(--test "$file"); done
  PG_STORAGE_TEST_STORE=$store all_tests "${chosen[@]}"
}

# Prints the counts as the last line; fails when a test or a phase failed or nothing ran.
summary() {
  say "Summary"
  if ((${#BROKEN[@]})); then printf 'failed: %s\n' "${BROKEN[@]}"; fi
  if ((PASSED + FAILED == 0)); then printf 'no test ran\n'; fi
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((${#BROKEN[@]} == 0 && FAILED == 0 && PASSED > 0))
}
