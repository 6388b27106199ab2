#!/usr/bin/env bash
# Opens psql on the running development cluster.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/dev-cluster.sh
source "$(dirname "$0")/dev-cluster.sh"

dev_is_running || die "the development cluster is not running: start it with 'make up'"
exec "$TREE_BIN/psql" "$(dev_url)"
