#!/usr/bin/env bash
# Builds the Garage S3 server, the real store of the tests, into the cache directory unless it is there already.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

if [[ -x $GARAGE_BIN ]]; then
  note "garage: $GARAGE_BIN"
  exit
fi
[[ -z ${PG_STORAGE_GARAGE:-} ]] || die "PG_STORAGE_GARAGE names $PG_STORAGE_GARAGE, which is not an executable file"

say "Building Garage $GARAGE_VERSION (once; about ten minutes on two cores)"
env -u CARGO_TARGET_DIR cargo install garage --version "$GARAGE_VERSION" --locked \
  --no-default-features --features bundled-libs,sqlite --root "$CACHE_DIR/garage-$GARAGE_VERSION"
