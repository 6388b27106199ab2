#!/usr/bin/env bash
# Installs what the tests with web clients need and is missing: Chromium and npm from Debian, and the Node.js packages of
# tests/web, Node.js itself among them, into the cache directory.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

missing=()
if [[ ! -x $CHROMIUM_BIN ]]; then
  [[ -z ${PG_STORAGE_CHROMIUM:-} ]] || die "PG_STORAGE_CHROMIUM names $PG_STORAGE_CHROMIUM, which is not an executable file"
  missing+=(chromium)
fi
if [[ ! -d $WEB_DIR ]] && ! command -v npm >/dev/null; then missing+=(npm); fi
if ((${#missing[@]})); then install_packages "${missing[@]}"; fi

if [[ ! -d $WEB_DIR ]]; then
  say "Installing the Node.js packages of tests/web (once; about half a minute and half a gigabyte)"
  mkdir -p "$CACHE_DIR"
  # Into place only when complete, so that an interrupted run is not taken for the packages.
  partial=$(mktemp -d "$CACHE_DIR/web-partial.XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  cp tests/web/package.json tests/web/package-lock.json "$partial"
  # Warnings say that PostGraphile wants a newer Node.js than npm runs on; it gets the one that is among the packages.
  (cd "$partial" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) ||
    die "npm could not install what tests/web/package-lock.json lists"
  chmod 755 "$partial"
  mv -T "$partial" "$WEB_DIR" 2>/dev/null || [[ -d $WEB_DIR ]] # another run was faster
fi
note "web clients: $("$CHROMIUM_BIN" --version 2>/dev/null), packages in $WEB_DIR"
