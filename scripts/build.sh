#!/usr/bin/env bash
# Builds the extension and installs it into the private PostgreSQL tree, never into the system's; builds the local
# store's binary as well.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"

choose_run_dir
say "Building pg_storage for PostgreSQL $PG_MAJOR (profile $PROFILE; minutes the first time, seconds after)"
private_tree "pg$PG_MAJOR"
pgrx_home "$PGRX_HOME" "$(system_pg_config)"
# cargo-pgrx removes the old library before it copies the new one: a running server keeps what it has mapped.
pgrx install --profile "$PROFILE" --pg-config "$TREE_PG_CONFIG" --no-default-features --features "pg$PG_MAJOR"
# Selecting the extension with it gives both the same features of the same dependencies: nothing is built twice.
cargo build --profile "$PROFILE" -p pg_storage -p pg_storage_gateway --bins \
  --no-default-features --features "pg$PG_MAJOR"
