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
rm -rf "$RUN_DIR" "$TARGET_DIR"
note "removed $TARGET_DIR"
