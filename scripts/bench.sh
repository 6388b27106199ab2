#!/usr/bin/env bash
# Measures, in a release build, on throw-away clusters, and prints one table; with --record it goes to docs/benchmarks.md
# instead. Variables: ROWS (files that are listed), ROUNDS, SECONDS_EACH, URLS, UPLOADS,
# MEBIBYTES; PART (measure only the parts whose name contains it, such as "upload requests").
set -euo pipefail
export PROFILE=${PROFILE:-release}
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/testing.sh
source "$(dirname "$0")/testing.sh"

BOTO3_VERSION=1.44.5

# boto3 is only there to be compared with: without it its row says so.
boto3() {
  local venv=$CACHE_DIR/boto3-$BOTO3_VERSION
  if [[ ! -x $venv/bin/python ]]; then
    command -v python3 >/dev/null || return 0
    rm -rf "$venv.partial"
    if ! { python3 -m venv "$venv.partial" && "$venv.partial/bin/pip" install -q "boto3==$BOTO3_VERSION"; } >/dev/null 2>&1; then
      rm -rf "$venv.partial"
      return 0
    fi
    mv "$venv.partial" "$venv"
  fi
  echo "$venv/bin/python"
}

# A test brings a program that was built with it, and the environment.
if [[ -z ${PG_STORAGE_BENCH:-} ]]; then
  "$ROOT/scripts/install-deps.sh" >&2
  "$ROOT/scripts/build.sh" >&2
  cargo build --profile "$PROFILE" -p pg_storage_bench
  test_environment
  PG_STORAGE_BENCH=$(profile_dir)/pg_storage_bench
  PG_STORAGE_BOTO3=$(boto3)
  export PG_STORAGE_BOTO3
fi

if [[ ${1:-} == --record ]]; then
  table=$("$PG_STORAGE_BENCH")
  {
    sed '/^<!-- measured/q' docs/benchmarks.md
    printf '\n%s\n' "$table"
  } >"$TARGET_DIR/benchmarks.md"
  mv "$TARGET_DIR/benchmarks.md" docs/benchmarks.md
  note "written to docs/benchmarks.md"
else
  "$PG_STORAGE_BENCH"
fi
