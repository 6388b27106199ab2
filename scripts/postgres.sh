# shellcheck shell=bash
# Sourced after env.sh by the scripts that start PostgreSQL: private trees, clean environments, clusters.

# Makes a relocated copy of the system's PostgreSQL under RUN_DIR/$1 unless an up-to-date one is there, and sets
# TREE_PG_CONFIG and TREE_BIN. Installing the extension into the copy touches nothing outside the checkout.
private_tree() {
  local system tree=${RUN_DIR:?source env.sh first}/${1:?a name for the tree} directory include
  system=$(system_pg_config) || die "PostgreSQL $PG_MAJOR with its server headers is not installed: run 'make install-deps'"
  TREE_PG_CONFIG=$tree$("$system" --bindir)/pg_config
  TREE_BIN=$(dirname "$TREE_PG_CONFIG")
  if [[ -x $TREE_PG_CONFIG && $("$TREE_PG_CONFIG" --version) == "$("$system" --version)" ]] &&
    has_extensions_of "$system" "$tree"; then
    return
  fi
  note "copying $("$system" --version) to $tree"
  rm -rf "$tree" "$tree.partial"
  # The copies keep their absolute paths below the tree: PostgreSQL finds its parts relative to its own binary.
  for directory in "$("$system" --bindir)" "$("$system" --pkglibdir)" "$("$system" --sharedir)"; do
    mkdir -p "$tree.partial$directory"
    cp -a "${directory:?}/." "$tree.partial$directory/"
  done
  include=$("$system" --includedir)
  mkdir -p "$tree.partial$(dirname "$include")"
  ln -sfn "$include" "$tree.partial$include"
  mv "$tree.partial" "$tree"
}

# Whether a tree has every extension of the system's: one that was installed since is a reason for a new copy.
has_extensions_of() {
  local extension
  for extension in "$("$1" --sharedir)"/extension/*.control; do
    [[ -e $2$extension ]] || return 1
  done
}

# Tells cargo-pgrx which PostgreSQL to build against; $1 is its home. Written only when it changes, because the
# bindings are generated anew whenever this file is newer than they are.
pgrx_home() {
  local home=$1 pg_config=$2 config
  config=$(printf '[configs]\npg%s = "%s"' "$PG_MAJOR" "$pg_config")
  [[ -f $home/config.toml && $(<"$home/config.toml") == "$config" ]] && return
  mkdir -p "$home"
  printf '%s\n' "$config" >"$home/config.toml"
}

# Runs a command with nothing in its environment but what a server should see. Names are removed one by one because
# `env -i S3_SECRET_ACCESS_KEY=…` would show the secret in the process list.
with_server_environment() (
  local name
  while read -r name; do
    case $name in
    PATH | LANG | TZ | S3_ENDPOINT | S3_REGION | S3_ACCESS_KEY_ID | S3_SECRET_ACCESS_KEY | S3_FORCE_PATH_STYLE | S3_INSECURE) ;;
    *) unset "$name" ;;
    esac
  done < <(compgen -e)
  "$@"
)

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints the first free port from $1 upwards.
free_port() {
  local port
  for ((port = $1; port < $1 + 200; port++)); do
    if port_is_free "$port"; then
      echo "$port"
      return
    fi
  done
  die "no free port between $1 and $((port - 1))"
}

# init_cluster DATA: trust is safe because the cluster listens on loopback and on a socket in its own 0700 directory.
init_cluster() {
  as_server "$TREE_BIN/initdb" -D "$1" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
  as_server tee -a "$1/postgresql.conf" >/dev/null <<<"include 'pg_storage.conf'"
}

# configure_cluster DATA PORT: reads further settings from standard input.
configure_cluster() {
  {
    printf '%s\n' \
      "port = $2" \
      "listen_addresses = '127.0.0.1'" \
      "unix_socket_directories = '$1'" \
      "shared_preload_libraries = 'pg_storage'" \
      "log_line_prefix = '%m [%p] %b '"
    cat
  } | as_server tee "$1/pg_storage.conf" >/dev/null
}

# start_cluster DATA LOG
start_cluster() {
  if ! with_server_environment as_server "$TREE_BIN/pg_ctl" start -w -t 60 -D "$1" -l "$2" >/dev/null; then
    as_server tail -n 20 "$2" >&2 || :
    die "PostgreSQL did not start; the end of its log $2 is above"
  fi
}

# stop_cluster DATA
stop_cluster() { as_server "$TREE_BIN/pg_ctl" stop -w -t 60 -m fast -D "$1" >/dev/null; }

cluster_is_running() { [[ -d $1 ]] && as_server "$TREE_BIN/pg_ctl" status -D "$1" >/dev/null; }
