# shellcheck shell=bash disable=SC2034
# Sourced after postgres.sh by up, down, url, psql and clean: where the development cluster is and what it is called.

choose_run_dir
DEV_DIR=$RUN_DIR/dev
DEV_DATA=$DEV_DIR/data
DEV_LOG=$DEV_DIR/log
DEV_DATABASE=storage_dev

dev_is_running() {
  [[ -f $DEV_DATA/PG_VERSION ]] || return 1
  private_tree "pg$(<"$DEV_DATA/PG_VERSION")"
  cluster_is_running "$DEV_DATA"
}

dev_url() { echo "postgresql://postgres@127.0.0.1:$(<"$DEV_DIR/port")/$DEV_DATABASE"; }
