#!/usr/bin/env bash
# The main job on real files, in a throw-away cluster with the local store: request, PUT, confirm, download, dedup, and
# what is refused. Installs and builds what is missing first; leaves nothing running and nothing behind.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"

"$ROOT/scripts/install-deps.sh"
"$ROOT/scripts/build.sh"

choose_run_dir
private_tree "pg$PG_MAJOR"
DEMO_DIR=$(mktemp -d "$RUN_DIR/demo.XXXXXX")
server_dir "$DEMO_DIR"
DATA=$DEMO_DIR/data
FILES=$(mktemp -d)

# PostgreSQL's processes work in the data directory, whatever they are called.
processes() {
  local entry
  for entry in /proc/[0-9]*; do
    if [[ $(readlink "$entry/cwd") == "$DATA" ]]; then echo "${entry#/proc/}"; fi
  done 2>/dev/null
}

cleanup() {
  local status=$?
  trap '' INT TERM
  say "Cleaning up"
  if cluster_is_running "$DATA"; then
    as_server "$TREE_BIN/pg_ctl" stop -w -m immediate -D "$DATA" >/dev/null
  fi
  if ((status != 0)) && [[ -f $DEMO_DIR/log ]]; then
    note "the demo failed; the end of the server's log:"
    tail -n 15 "$DEMO_DIR/log"
  fi
  if [[ -n $(processes) ]]; then
    note "still running: $(processes | tr '\n' ' ')"
    status=1
  else
    note "nothing left running"
  fi
  rm -rf "$DEMO_DIR" "$FILES"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

query() { as_server "$TREE_BIN/psql" -Xq -v ON_ERROR_STOP=1 -h "$DATA" -d demo "$@"; }
admin() { query -U postgres "$@"; }
# The application: an ordinary role, with the claim that a gateway such as PostGraphile sets for each request.
app() { query -U app -At -c "SET jwt.claims.user_id = 'ada'" -c "$1"; }

check() {
  if [[ $2 != "$3" ]]; then die "$1: expected $3, got $2"; fi
  note "$1: $2"
}

# show QUERY: what a person at psql would see, indented.
show() { admin --pset=footer=off -c "$1" | sed -e '/^$/d' -e 's/^/    /'; }

# view NAME COLUMNS
view() {
  printf '\n    storage.%s\n' "$1"
  show "SELECT $2 FROM storage.$1"
}

digest() { sha256sum "$1" | cut -d' ' -f1; }
literal() { printf "'%s'" "${1//\'/\'\'}"; }

# request FILE TYPE [DIGEST]: asks for an upload and keeps the ticket as JSON in TICKET.
request() {
  TICKET=$(app "SELECT to_jsonb(ticket) FROM storage.request_upload_url('private', $(literal "$(basename "$1")"),
    $(literal "$2"), $(stat -c %s "$1"), $(literal "${3:-$(digest "$1")}")) AS ticket")
}
# Through standard input, because a presigned URL is a secret and a command line is not.
ticket() { admin -At <<<"SELECT $(literal "$TICKET")::jsonb ->> '$1'"; }

# put FILE [HEADER-TO-LEAVE-OUT]: sends the file with exactly the headers of the ticket; sets STATUS to what came back.
put() {
  local progress=(--silent --show-error)
  if [[ -t 2 ]] && (($(stat -c %s "$1") > 1048576)); then progress=(--progress-bar); fi
  admin -At -v left_out="${2:-}" >"$FILES/curl" <<SQL
SELECT 'url = ' || to_json(ticket ->> 'url') || E'\nrequest = ' || to_json(ticket ->> 'method')
  FROM (SELECT $(literal "$TICKET")::jsonb AS ticket) AS t;
SELECT 'header = ' || to_json(key || ': ' || value)
  FROM jsonb_each_text($(literal "$TICKET")::jsonb -> 'headers') WHERE key <> :'left_out';
SQL
  read -r STATUS SECONDS_TAKEN < <(curl "${progress[@]}" --config "$FILES/curl" --upload-file "$1" \
    --output "$FILES/answer" --write-out '%{http_code} %{time_total}\n')
}

# The reason the store gave in its last answer.
store_says() { note "the store says: $(sed -n 's/.*<Message>\(.*\)<\/Message>.*/\1/p' "$FILES/answer")"; }

upload() {
  request "$1" "$2"
  note "ticket: $(ticket method) to $(cut -d'?' -f1 <<<"$(ticket url)")?… until $(ticket expires_at)"
  note "headers to send: $(admin -At <<<"SELECT string_agg(key, ', ') FROM jsonb_object_keys($(literal "$TICKET")::jsonb -> 'headers') AS key")"
  put "$1"
  check "PUT" "$STATUS" 200
  note "bytes sent: $(stat -c %s "$1") in $SECONDS_TAKEN s"
  check "confirm" "$(app "SELECT status FROM storage.confirm_upload('$(ticket upload_id)')")" uploaded
  printf 'url = "%s"\n' "$(app "SELECT storage.download_url('$(ticket file_id)')")" >"$FILES/curl"
  curl --silent --show-error --fail --config "$FILES/curl" --output "$FILES/download"
  check "downloaded, its SHA-256" "$(digest "$FILES/download")" "$(digest "$1")"
}

say "Starting a throw-away cluster with the extension and its local store"
init_cluster "$DATA"
# Only its Unix socket, so that no port is taken.
configure_cluster "$DATA" 5432 <<'SETTINGS'
listen_addresses = ''
pg_storage.bucket_prefix = 'demo'
pg_storage.allowed_origins = 'http://localhost:3000'
pg_storage.databases = 'demo'
SETTINGS
start_cluster "$DATA" "$DEMO_DIR/log"
as_server "$TREE_BIN/createdb" -h "$DATA" -U postgres demo
admin -c "CREATE EXTENSION pg_storage"
show "SELECT split_part(version(), ' (', 1) AS server, extversion AS pg_storage FROM pg_extension WHERE extname = 'pg_storage'"

say "A users table whose trigger gives each user three buckets; a role for the application"
admin <<'SQL'
CREATE TABLE users (id text PRIMARY KEY, name text NOT NULL);
CREATE TRIGGER buckets AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION storage.seed_user_buckets('id');
CREATE ROLE app LOGIN;
SELECT storage.grant_access('app', 'writer') \g /dev/null
INSERT INTO users VALUES ('ada', 'Ada Lovelace');
SQL
show "SELECT key, access, owner_id, is_default FROM storage.buckets ORDER BY key"

say "Uploading a file of this repository: request, PUT, confirm, download"
upload "$ROOT/LICENSE" text/plain

say "The same with a generated file of 64 MiB"
head -c 67108864 /dev/urandom >"$FILES/large.bin"
upload "$FILES/large.bin" application/octet-stream

say "The same 64 MiB again: known and verified bytes are linked, not sent"
request "$FILES/large.bin" application/octet-stream
check "deduplicated" "$(ticket deduplicated)" true
check "URL to send bytes to" "$(ticket url | grep . || echo none)" none
note "bytes sent: 0"
check "objects behind the two files" "$(admin -At -c "SELECT count(DISTINCT object_id) FROM storage.files WHERE filename = 'large.bin'")" 1

say "Other bytes than declared, of the same length: the store refuses them"
head -c 1000 /dev/urandom >"$FILES/declared.bin"
head -c 1000 /dev/urandom >"$FILES/other.bin"
request "$FILES/declared.bin" application/octet-stream
put "$FILES/other.bin"
check "PUT of other bytes" "$STATUS" 400
store_says
check "confirm" "$(app "SELECT concat_ws(' ', status, reason) FROM storage.confirm_upload('$(ticket upload_id)')")" "requested NOT_UPLOADED"

say "A signed header left out: refused as well"
put "$FILES/declared.bin" x-amz-checksum-sha256
check "PUT without x-amz-checksum-sha256" "$STATUS" 403
store_says

say "Deleting a file queues its bytes; the collector removes them after the configured delay"
app "DELETE FROM storage.files WHERE filename = 'LICENSE'"
check "objects waiting to be deleted" "$(admin -At -c "SELECT count(*) FROM storage.deletion_queue")" 1

say "What a DBA sees"
view upload_state "bucket_key, status, reason, uploads, declared_bytes"
view bucket_usage "bucket_key, access, physical_name, files, objects, bytes"
view deletion_queue "reason, due, not_before, attempts, last_error"
view provisioning_state "name, state, step, outcome, reason"
view worker_state "database, kind, state, last_pass_at, objects_deleted, events_announced, last_error"
view "cache_stats()" "*"
view "check()" "name, status, detail"

say "Done"
