#!/usr/bin/env bash
# A file of 6 GiB in parts through the local store: interrupted by a crash of the server, resumed with nothing but the
# upload's id, confirmed with its hash and made public, while nobody's memory grows with the file. Not among the tests: it needs
# 13 GB of disk and some minutes. Installs and builds what is missing first; leaves nothing running and nothing behind.
#
# BIG_FILE_GIB: another size.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"

GIB=${BIG_FILE_GIB:-6}

"$ROOT/scripts/install-deps.sh"
"$ROOT/scripts/build.sh"

choose_run_dir
private_tree "pg$PG_MAJOR"
BIG_DIR=$(mktemp -d "$RUN_DIR/big.XXXXXX")
server_dir "$BIG_DIR"
DATA=$BIG_DIR/data
FILES=$(mktemp -d)
SAMPLER=

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
  if [[ -n $SAMPLER ]]; then kill "$SAMPLER" 2>/dev/null || true; fi
  if cluster_is_running "$DATA"; then
    as_server "$TREE_BIN/pg_ctl" stop -w -m immediate -D "$DATA" >/dev/null
  fi
  if ((status != 0)) && [[ -f $BIG_DIR/log ]]; then
    note "it failed; the end of the server's log:"
    tail -n 15 "$BIG_DIR/log"
  fi
  rm -rf "$BIG_DIR" "$FILES"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

query() { as_server "$TREE_BIN/psql" -Xq -v ON_ERROR_STOP=1 -h "$DATA" -d big "$@"; }
admin() { query -U postgres "$@"; }
app() { query -U app -At -c "SET jwt.claims.user_id = 'ada'" -c "$1"; }

check() {
  if [[ $2 != "$3" ]]; then die "$1: expected $3, got $2"; fi
  note "$1: $2"
}

# The most private memory, in kB, that a client's backend, and any other process of the server, was seen to have.
sample() {
  local backend=0 other=0 pid field value title
  while :; do
    for pid in $(processes); do
      title=$(tr '\0' ' ' <"/proc/$pid/cmdline") || continue
      while read -r field value _; do
        if [[ $field == RssAnon: ]]; then
          if [[ $title == "postgres: app "* ]]; then
            if ((value > backend)); then backend=$value; fi
          elif ((value > other)); then
            other=$value
          fi
        fi
      done <"/proc/$pid/status" || continue
    done 2>/dev/null
    echo "$backend $other" >"$FILES/peaks.new"
    mv "$FILES/peaks.new" "$FILES/peaks"
    sleep 0.2
  done
}

# send NUMBER: has one part signed and sends it.
send() {
  local first size status
  app "SELECT to_jsonb(p) FROM storage.sign_upload_parts('$UPLOAD', ARRAY[$1]) p" >"$FILES/part.json"
  # Through files, because a presigned URL is a secret and a command line is not.
  read -r first size < <(admin -At -F ' ' <<<"SELECT p ->> 'first_byte', p ->> 'size' FROM (SELECT '$(cat "$FILES/part.json")'::jsonb AS p) t")
  admin -At >"$FILES/curl" <<SQL
SELECT 'url = ' || to_json(p ->> 'url') || E'\nrequest = ' || to_json(p ->> 'method')
  FROM (SELECT '$(cat "$FILES/part.json")'::jsonb AS p) AS t;
SELECT 'header = ' || to_json(key || ': ' || value) FROM jsonb_each_text('$(cat "$FILES/part.json")'::jsonb -> 'headers');
SQL
  dd if="$FILES/source" of="$FILES/part" bs=1M skip=$((first / 1048576)) count=$(((size + 1048575) / 1048576)) status=none
  status=$(curl --silent --show-error --config "$FILES/curl" --upload-file "$FILES/part" --output "$FILES/answer" --write-out '%{http_code}')
  if [[ $status != 200 ]]; then die "part $1: HTTP $status: $(cat "$FILES/answer")"; fi
  rm "$FILES/part"
}

missing() { app "SELECT part_number FROM storage.list_upload_parts('$UPLOAD') WHERE NOT uploaded ORDER BY 1"; }
told() { note "most private memory so far, in kB, of a client's backend and of any other process: $(cat "$FILES/peaks")"; }

say "A file of $GIB GiB, sparse but for some random bytes in each 64 MiB"
truncate -s "${GIB}G" "$FILES/source"
for ((at = 0; at < GIB * 16; at++)); do
  head -c 65536 /dev/urandom | dd of="$FILES/source" bs=65536 seek=$((at * 1024 + 7)) conv=notrunc status=none
done
SIZE=$(stat -c %s "$FILES/source")
DIGEST=$(sha256sum "$FILES/source" | cut -d' ' -f1)
note "$SIZE bytes, SHA-256 $DIGEST"

say "Starting a throw-away cluster with the extension and its local store"
init_cluster "$DATA"
configure_cluster "$DATA" 5432 <<'SETTINGS'
listen_addresses = ''
pg_storage.bucket_prefix = 'big'
pg_storage.allowed_origins = 'http://localhost:3000'
pg_storage.databases = 'big'
pg_storage.max_file_size = '5TB'
SETTINGS
start_cluster "$DATA" "$BIG_DIR/log"
as_server "$TREE_BIN/createdb" -h "$DATA" -U postgres big
admin >/dev/null <<'SQL'
CREATE EXTENSION pg_storage;
CREATE ROLE app LOGIN;
SELECT storage.grant_access('app', 'writer');
SELECT storage.create_user_buckets('ada');
SQL
sample &
SAMPLER=$!

say "Asking for the upload, and sending a part of the parts"
read -r UPLOAD FILE_ID COUNT < <(app "SELECT upload_id || ' ' || file_id || ' ' || part_count
  FROM storage.request_multipart_upload('private', 'big.bin', 'application/octet-stream', $SIZE, 268435456, '$DIGEST')")
note "upload $UPLOAD in $COUNT parts"
for number in $(seq 1 $((COUNT * 2 / 5))); do send "$number"; done
told

say "The server crashes"
as_server "$TREE_BIN/pg_ctl" stop -w -m immediate -D "$DATA" >/dev/null
start_cluster "$DATA" "$BIG_DIR/log"
for ((attempt = 0; attempt < 150; attempt++)); do
  if LEFT=$(missing 2>"$FILES/errors"); then break; fi
  sleep 0.2
done
check "parts that are missing, says the store" "$(wc -w <<<"$LEFT" | tr -d ' ')" "$((COUNT - COUNT * 2 / 5))"
check "confirming too early" "$(app "SELECT status || ' ' || reason FROM storage.confirm_upload('$UPLOAD')")" "requested NOT_UPLOADED"

say "Resuming, with nothing but the upload's id"
for number in $LEFT; do send "$number"; done
check "parts that are missing" "$(missing | wc -l)" 0
told

say "Confirming: the store makes one object of the parts, and the whole of it is read"
BEGAN=$SECONDS
check "confirm" "$(app "SELECT status FROM storage.confirm_upload('$UPLOAD')")" uploaded
note "it took $((SECONDS - BEGAN)) s"
check "SHA-256" "$(app "SELECT sha256 FROM storage.files WHERE id = '$FILE_ID'")" "$DIGEST"
check "size" "$(app "SELECT size FROM storage.files WHERE id = '$FILE_ID'")" "$SIZE"
told

say "Downloading"
printf 'url = "%s"\n' "$(app "SELECT storage.download_url('$FILE_ID')")" >"$FILES/curl"
check "downloaded, its SHA-256" "$(curl --silent --show-error --fail --config "$FILES/curl" | sha256sum | cut -d' ' -f1)" "$DIGEST"
told

say "Making it public: the store copies it in parts, and the copy is read"
BEGAN=$SECONDS
check "access" "$(app "SELECT b.access FROM storage.set_file_access('$FILE_ID', 'public') f JOIN storage.buckets b ON b.id = f.bucket_id")" public
note "it took $((SECONDS - BEGAN)) s"
printf 'url = "%s"\n' "$(app "SELECT storage.public_url('$FILE_ID')")" >"$FILES/curl"
check "read by everybody, its SHA-256" "$(curl --silent --show-error --fail --config "$FILES/curl" | sha256sum | cut -d' ' -f1)" "$DIGEST"
told

read -r BACKEND OTHER <"$FILES/peaks"
# A process that held one part, or a hundredth of the file, would have more.
for peak in "$BACKEND" "$OTHER"; do
  if ((peak == 0 || peak > 65536)); then die "a process had $peak kB of private memory"; fi
done
say "Done: $GIB GiB, interrupted and resumed; at most $BACKEND kB in a client's backend, $OTHER kB in any other process"
