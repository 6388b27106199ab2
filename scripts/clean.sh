#!/usr/bin/env bash
# Stops the development cluster and removes everything that was built or created for this checkout.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/dev-cluster.sh
source "$(dirname "$0")/dev-cluster.sh"

if dev_is_running; then stop_cluster "$DEV_DATA"; fi
rm -rf "${RUN_DIR:?}"/{dev,tests,pgrx-test} "${RUN_DIR:?}"/demo.* "${RUN_DIR:?}"/pg[0-9]* "$PGRX_HOME" "$PGRX_HOME-test"
if [[ $TARGET_DIR == "$ROOT/target" ]]; then
  rm -rf "$TARGET_DIR"
else
  # Other projects may build there too.
  cargo clean -p pg_storage -p pg_storage_core -p pg_storage_store -p pg_storage_gateway -p pg_storage_fuzz -p pg_storage_tests
fi
rm -rf fuzz/target
if [[ $RUN_DIR != "$TARGET_DIR" ]]; then rm -rf "$RUN_DIR"; fi
note "removed what was built and created for $ROOT"
