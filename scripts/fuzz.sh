#!/usr/bin/env bash
# Fuzzes one target for so many seconds: guided by coverage where cargo-fuzz and a nightly toolchain are installed, else
# with seeded inputs. Findings are below fuzz/artifacts, or in the message.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"

target=${1:-}
seconds=${2:-60}
mapfile -t targets < <(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
[[ " ${targets[*]} " == *" $target "* && -n $target ]] || die "name a target: make fuzz T=target SECONDS=60, of: ${targets[*]}"
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "SECONDS is a number"

# A toolchain that is missing must not be fetched.
export RUSTUP_AUTO_INSTALL=0
if command -v cargo-fuzz >/dev/null && rustup run nightly rustc --version >/dev/null 2>&1; then
  say "Fuzzing $target for $seconds s, guided by coverage"
  # Without a beginning, coverage has to find every language by itself.
  cargo run -q --profile "$PROFILE" -p pg_storage_fuzz --example seeds -- "fuzz/corpus/$target" 500
  # cargo-fuzz keeps its own target directory.
  exec env -u CARGO_TARGET_DIR -u RUSTUP_TOOLCHAIN cargo +nightly fuzz run "$target" -- \
    -max_total_time="$seconds" -max_len=4096 -len_control=0 -timeout=60
fi
say "Fuzzing $target for $seconds s with seeded inputs (cargo-fuzz and a nightly toolchain would guide it by coverage)"
export PG_STORAGE_FUZZ_SECONDS=$seconds PG_STORAGE_FUZZ_SEED=${PG_STORAGE_FUZZ_SEED:-$RANDOM}
exec cargo test --profile "$PROFILE" -p pg_storage_fuzz --test brief -- --exact --nocapture "$target"
