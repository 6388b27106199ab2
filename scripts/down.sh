#!/usr/bin/env bash
# Stops the development cluster and keeps its data.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/dev-cluster.sh
source "$(dirname "$0")/dev-cluster.sh"

if dev_is_running; then
  stop_cluster "$DEV_DATA"
  note "stopped; the data stays in $DEV_DATA"
else
  note "the development cluster is not running"
fi
