#!/usr/bin/env bash
# Prints the connection URL of the running development cluster, for its superuser, and nothing else.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/dev-cluster.sh
source "$(dirname "$0")/dev-cluster.sh"

dev_is_running || die "the development cluster is not running: start it with 'make up'"
dev_url
