#!/usr/bin/env bash
# Installs what the build and the tests need and is missing: Debian packages (as root or with sudo) and cargo-pgrx; with
# the argument `build`, only what the build needs. Checks the Rust toolchain and says how to get it. Quick and silent about
# what is there already.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

purpose=${1:-tests}
for_tests() { [[ $purpose != build ]]; }

have_cargo_pgrx() { [[ $(pgrx --version 2>/dev/null) == "cargo-pgrx $PGRX_VERSION" ]]; }

missing_packages() {
  local pg_config
  if ! pg_config=$(system_pg_config); then
    echo "postgresql-$PG_MAJOR postgresql-server-dev-$PG_MAJOR"
    ! for_tests || echo "postgresql-$PG_MAJOR-plpgsql-check"
  else
    # A test checks every function in SQL with it.
    ! for_tests || [[ -f $("$pg_config" --sharedir)/extension/plpgsql_check.control ]] || echo "postgresql-$PG_MAJOR-plpgsql-check"
    [[ -x $("$pg_config" --bindir)/initdb ]] || echo "postgresql-$PG_MAJOR"
    [[ -f $("$pg_config" --includedir-server)/postgres.h ]] || echo "postgresql-server-dev-$PG_MAJOR"
  fi
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/*/libclang*.so*' >/dev/null ||
    echo libclang-dev
  if ! command -v cc >/dev/null || ! [[ -e /usr/include/stdio.h ]]; then echo "gcc libc6-dev"; fi
  command -v make >/dev/null || echo make
  if for_tests; then
    # The tests give a store another clock with it.
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || compgen -G '/usr/lib/faketime/libfaketime.so.1' >/dev/null ||
      echo libfaketime
    command -v curl >/dev/null || echo "curl ca-certificates"
    # A page in docs uploads from Python.
    /usr/bin/python3 -c 'import psycopg' 2>/dev/null || echo python3-psycopg
  fi
  # Only to build cargo-pgrx, which links OpenSSL.
  if ! have_cargo_pgrx; then
    command -v pkg-config >/dev/null || echo pkg-config
    [[ -e /usr/include/openssl/ssl.h ]] || echo libssl-dev
  fi
}

read -ra packages < <(missing_packages | tr '\n' ' ') || :
if ((${#packages[@]})); then
  install_packages "${packages[@]}"
fi

required=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
  die "Rust $required or later is missing: install it with rustup (https://rustup.rs), then run this again"
fi
installed=$(rustc --version 2>&1) ||
  die "the toolchain of rust-toolchain.toml is missing: run 'rustup toolchain install' in this directory ($installed)"
installed=$(cut -d' ' -f2 <<<"$installed")
if [[ $(printf '%s\n' "$required" "$installed" | sort -V | head -n 1) != "$required" ]]; then
  die "Rust $required or later is needed and this is $installed: run 'rustup update'"
fi

if ! have_cargo_pgrx; then
  say "Building cargo-pgrx $PGRX_VERSION (once; about ten minutes on two cores)"
  # Beside whatever version the user has, and without this checkout's target directory.
  env -u CARGO_TARGET_DIR cargo install cargo-pgrx --version "=$PGRX_VERSION" --locked \
    --root "$CACHE_DIR/cargo-pgrx-$PGRX_VERSION"
fi

note "dependencies: $("$(system_pg_config)" --version), rustc $installed, cargo-pgrx $PGRX_VERSION"
