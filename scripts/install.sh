#!/usr/bin/env bash
# Builds an optimised library and installs the extension into this machine's PostgreSQL: PG_MAJOR (15) from Debian's
# packages, or the one whose pg_config PG_CONFIG names. With DESTDIR the files go below that instead, for a package.
set -euo pipefail
export PROFILE=${PROFILE:-release}
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/postgres.sh
source "$(dirname "$0")/postgres.sh"

"$ROOT/scripts/install-deps.sh" build
pg_config=$(system_pg_config) || die "there is no PostgreSQL $PG_MAJOR: PG_MAJOR and PG_CONFIG choose another"
pgrx_home "$PGRX_HOME" "$pg_config"

say "Building pg_storage for $("$pg_config" --version) (profile $PROFILE; minutes the first time)"
package=$TARGET_DIR/package-pg$PG_MAJOR
rm -rf "$package"
pgrx package --profile "$PROFILE" --pg-config "$pg_config" --no-default-features --features "pg$PG_MAJOR" --out-dir "$package"

say "Installing into ${DESTDIR:-$("$pg_config" --version)}"
destination=${DESTDIR:-}/
as_root=()
if [[ -z ${DESTDIR:-} ]] && ((EUID != 0)) && ! [[ -w $("$pg_config" --pkglibdir) ]]; then as_root=(sudo); fi
# A running server keeps the library it has mapped: the old file goes away, and is not written over.
while IFS= read -r -d '' file; do
  "${as_root[@]}" install -D -m 644 "$package/$file" "$destination$file.new"
  "${as_root[@]}" mv -f "$destination$file.new" "$destination$file"
  note "$destination$file"
done < <(cd "$package" && find . -type f -printf '%P\0' | sort -z)
