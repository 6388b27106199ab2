#!/usr/bin/env bash
# Everything that must be clean before a change is proposed; warnings are errors.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"

pgrx_home "$PGRX_HOME" "$(system_pg_config)"
features=(--no-default-features --features "pg$PG_MAJOR")

say "cargo fmt"
cargo fmt --all --check
say "cargo clippy"
cargo clippy --workspace --all-targets "${features[@]}" -- -D warnings
say "cargo doc"
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items "${features[@]}"

if command -v shellcheck >/dev/null; then
  say "shellcheck"
  shellcheck -x scripts/*.sh scripts/shim/* .ci/run
else
  note "shellcheck is not installed: skipped"
fi
if cargo deny --version >/dev/null 2>&1; then
  say "cargo deny"
  cargo deny check
else
  note "cargo-deny is not installed: skipped"
fi
