#!/usr/bin/env bash
# Everything that must be clean before a change is proposed; warnings are errors.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

command -v shellcheck >/dev/null || install_packages shellcheck
if [[ ! -x $CARGO_DENY ]]; then
  say "Building cargo-deny $DENY_VERSION (once; some minutes)"
  env -u CARGO_TARGET_DIR cargo install cargo-deny --version "=$DENY_VERSION" --locked --root "$CACHE_DIR/cargo-deny-$DENY_VERSION"
fi

pgrx_home "$PGRX_HOME" "$(system_pg_config)"
features=(--no-default-features --features "pg$PG_MAJOR")

say "cargo fmt"
cargo fmt --all --check
say "cargo clippy"
cargo clippy --workspace --all-targets "${features[@]}" -- -D warnings
say "cargo doc"
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items "${features[@]}"

say "shellcheck"
shellcheck -x scripts/*.sh scripts/shim/* .ci/run
# Advisories need a database from the network, and change without us: `cargo deny check advisories` asks for them.
say "cargo deny"
"$CARGO_DENY" --offline check bans licenses sources
