#!/usr/bin/env bash
# Brings the development cluster up: builds, installs, creates what is missing, restarts only when something changed.
# Honours PGPORT and the S3_* variables; without S3_ENDPOINT the extension runs its own local store.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/dev-cluster.sh
source "$(dirname "$0")/dev-cluster.sh"

# PGPORT, else the port it had, else the first free one from 15432.
choose_port() {
  local remembered
  if [[ -n ${PGPORT:-} ]]; then
    echo "$PGPORT"
  elif remembered=$(cat "$DEV_DIR/port" 2>/dev/null) && { $running || port_is_free "$remembered"; }; then
    echo "$remembered"
  else
    free_port 15432
  fi
}

# Changes exactly when the running server would have to be restarted to notice.
fingerprint() {
  {
    cat "$("$TREE_PG_CONFIG" --pkglibdir)/pg_storage.so"
    cat "$DEV_DATA/pg_storage.conf"
    "$TREE_PG_CONFIG" --version
    env | grep '^S3_' | sort || :
  } | sha256sum | cut -d' ' -f1
}

query() { as_server "$TREE_BIN/psql" -XAtq -v ON_ERROR_STOP=1 -h "$DEV_DATA" -p "$port" -U postgres "$@"; }

"$ROOT/scripts/install-deps.sh"
"$ROOT/scripts/build.sh"

private_tree "pg$PG_MAJOR"
if [[ -d $DEV_DATA && $(<"$DEV_DATA/PG_VERSION") != "$PG_MAJOR" ]]; then
  die "the development cluster in $DEV_DATA is of another PostgreSQL version: 'make clean' removes it"
fi

say "Development cluster in $DEV_DIR"
server_dir "$DEV_DIR"
if ! [[ -d $DEV_DATA ]]; then
  # Into place only when complete, so that an interrupted run is not mistaken for a cluster.
  as_server rm -rf "$DEV_DATA.partial"
  init_cluster "$DEV_DATA.partial"
  as_server mv "$DEV_DATA.partial" "$DEV_DATA"
fi

running=false
if cluster_is_running "$DEV_DATA"; then running=true; fi
port=$(choose_port)
configure_cluster "$DEV_DATA" "$port" <<'SETTINGS'
pg_storage.bucket_prefix = 'dev'
pg_storage.allowed_origins = 'http://localhost:3000'
pg_storage.databases = 'storage_dev'
SETTINGS

now=$(fingerprint)
if $running && [[ $now == "$(cat "$DEV_DIR/fingerprint" 2>/dev/null)" ]]; then
  note "already up, and nothing changed"
else
  if $running; then
    note "the library, the settings or the environment changed: restarting"
    stop_cluster "$DEV_DATA"
  fi
  port_is_free "$port" || die "port $port is taken by another program: choose one with PGPORT=…"
  start_cluster "$DEV_DATA" "$DEV_LOG"
  as_server tee "$DEV_DIR/port" >/dev/null <<<"$port"
  as_server tee "$DEV_DIR/fingerprint" >/dev/null <<<"$now"
fi

# Sorted, because cargo-pgrx writes independent objects in an order that changes from run to run.
script=$(sort "$("$TREE_PG_CONFIG" --sharedir)"/extension/pg_storage--*.sql | sha256sum | cut -d' ' -f1)
if [[ -z $(query -d postgres -c "SELECT 1 FROM pg_database WHERE datname = '$DEV_DATABASE'") ]]; then
  query -d postgres -c "CREATE DATABASE $DEV_DATABASE"
fi
if [[ -z $(query -d "$DEV_DATABASE" -c "SELECT 1 FROM pg_extension WHERE extname = 'pg_storage'") ]]; then
  query -d "$DEV_DATABASE" -c "CREATE EXTENSION pg_storage"
  as_server tee "$DEV_DIR/install-script" >/dev/null <<<"$script"
elif [[ -n $(query -d "$DEV_DATABASE" -c "SELECT 1 FROM pg_available_extensions WHERE name = 'pg_storage' AND installed_version <> default_version") ]]; then
  note "a newer version is installed: ALTER EXTENSION pg_storage UPDATE"
  query -d "$DEV_DATABASE" -c "ALTER EXTENSION pg_storage UPDATE"
  as_server tee "$DEV_DIR/install-script" >/dev/null <<<"$script"
elif [[ $script != "$(cat "$DEV_DIR/install-script" 2>/dev/null)" ]]; then
  note "the install script changed since $DEV_DATABASE got the extension: to have the new objects, run"
  note "  make psql, then DROP EXTENSION pg_storage CASCADE; CREATE EXTENSION pg_storage;  (this drops its rows)"
fi

note "store:  ${S3_ENDPOINT:-the local store of the extension}"
note "log:    $DEV_LOG"
note "url:    $(dev_url)"
