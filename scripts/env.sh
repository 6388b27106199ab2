# shellcheck shell=bash disable=SC2034
# Sourced by every script: where things are, who runs the servers, and the environment cargo and PostgreSQL need.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$ROOT" || exit
# The server's user must be able to read what is built, whatever the caller's umask.
umask 022

PROFILE=${PROFILE:-dev}
CACHE_DIR=${PG_STORAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/pg_storage}
TARGET_DIR=$(readlink -m "${CARGO_TARGET_DIR:-$ROOT/target}")
export CARGO_TARGET_DIR=$TARGET_DIR

PGRX_VERSION=0.18.1
GARAGE_VERSION=2.5.0
DENY_VERSION=0.20.2
CARGO_DENY=$CACHE_DIR/cargo-deny-$DENY_VERSION/bin/cargo-deny
GARAGE_BIN=${PG_STORAGE_GARAGE:-$CACHE_DIR/garage-$GARAGE_VERSION/bin/garage}
WEB_DIR=$CACHE_DIR/web-$(sha256sum tests/web/package-lock.json | cut -c1-12)
CHROMIUM_BIN=${PG_STORAGE_CHROMIUM:-/usr/bin/chromium}

# cargo-pgrx keeps its state here and not in the user's ~/.pgrx.
export PGRX_HOME=$TARGET_DIR/pgrx-home
# Without it `cargo pgrx` and plain `cargo` pass different flags and everything is built twice.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
# Else every ERROR that passes through Rust carries a backtrace in its DETAIL.
unset RUST_BACKTRACE
PATH=$CACHE_DIR/cargo-pgrx-$PGRX_VERSION/bin:$PATH

# The toolchain that rust-toolchain.toml pins may be installed under the name of its channel alone.
pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
if command -v rustup >/dev/null && ! rustc --version >/dev/null 2>&1 &&
  [[ $(rustup run stable rustc --version 2>/dev/null) == "rustc $pinned "* ]]; then
  export RUSTUP_TOOLCHAIN=stable
fi

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Where PG_CONFIG names a PostgreSQL, no other is taken in its place.
if [[ -n ${PG_CONFIG:-} ]]; then
  if ! [[ $("$PG_CONFIG" --version 2>&1) =~ ^PostgreSQL\ ([0-9]+) ]]; then
    die "PG_CONFIG=$PG_CONFIG is not the pg_config of a PostgreSQL"
  elif [[ ${PG_MAJOR:=${BASH_REMATCH[1]}} != "${BASH_REMATCH[1]}" ]]; then
    die "PG_CONFIG=$PG_CONFIG is of PostgreSQL ${BASH_REMATCH[1]}, and PG_MAJOR is $PG_MAJOR"
  fi
fi
PG_MAJOR=${PG_MAJOR:-15}

# The directory cargo gives the profile's artefacts.
profile_dir() {
  case $PROFILE in
  dev) echo "$TARGET_DIR/debug" ;;
  *) echo "$TARGET_DIR/$PROFILE" ;;
  esac
}

# pg_config of the PostgreSQL to build against: PG_CONFIG, or Debian's place or the one on PATH if its version fits.
system_pg_config() {
  local candidate
  if [[ -n ${PG_CONFIG:-} ]]; then
    echo "$PG_CONFIG"
    return
  fi
  for candidate in "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" "$(command -v pg_config || :)"; do
    if [[ -x $candidate && $("$candidate" --version) =~ ^PostgreSQL\ ${PG_MAJOR}[^0-9] ]]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# PostgreSQL refuses to run as root, so root hands its servers to the user of the Debian package.
if ((EUID == 0)); then SERVER_USER=postgres; else SERVER_USER=$(id -un); fi

# Runs a command as the server user, in a directory that user can be in.
as_server() (
  cd /
  if ((EUID == 0)); then exec runuser -u "$SERVER_USER" -- "$@"; else exec "$@"; fi
)

# Sets RUN_DIR: where the private PostgreSQL trees and the clusters live. That is the target directory, unless the
# server user cannot get into it (a checkout under a 0700 directory) or Unix sockets in it would have too long a name.
choose_run_dir() {
  mkdir -p "$TARGET_DIR"
  RUN_DIR=$TARGET_DIR
  local why=
  if ! as_server test -x "$TARGET_DIR" -a -r "$TARGET_DIR"; then
    why="the user $SERVER_USER cannot enter $TARGET_DIR"
  elif ((${#TARGET_DIR} > 60)); then
    why="$TARGET_DIR is too long for Unix sockets"
  fi
  [[ -n $why ]] || return 0

  local hash
  hash=$(printf '%s' "$TARGET_DIR" | sha256sum | cut -c1-12)
  RUN_DIR=/var/tmp/pg_storage-$(id -u)-$hash
  if mkdir -m 755 "$RUN_DIR" 2>/dev/null; then
    note "clusters live in $RUN_DIR, because $why" >&2
  fi
  # The parent is world-writable: a directory that somebody else put there must not be used.
  [[ -d $RUN_DIR && ! -L $RUN_DIR && -O $RUN_DIR ]] || die "$RUN_DIR exists and is not ours"
}

# Makes a directory that belongs to the server user and that nobody else can read.
server_dir() { install -d -m 700 -o "$SERVER_USER" "$1"; }

# Not `cargo pgrx`, which may prefer another version in cargo's own directory to the one on PATH.
pgrx() { cargo-pgrx pgrx "$@"; }
