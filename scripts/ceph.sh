#!/usr/bin/env bash
# Installs Debian's packages of Ceph, whose RADOS gateway is the third store of the tests, unless the programs are there
# already. They are only installed: the tests start a small cluster of their own (tests/src/ceph.rs) and end it.
set -euo pipefail
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh"
# shellcheck source=scripts/packages.sh
source "$(dirname "$0")/packages.sh"

have() {
  local program
  for program in "$@"; do command -v "$program" >/dev/null || return; done
}

missing_packages() {
  have ceph-mon monmaptool || echo ceph-mon
  { have ceph-osd && compgen -G '/usr/lib/*/rados-classes' >/dev/null; } || echo ceph-osd
  have radosgw radosgw-admin || echo radosgw
  have ceph || echo ceph-common
}

read -ra packages < <(missing_packages | tr '\n' ' ') || :
if ((${#packages[@]})); then
  install_packages "${packages[@]}"
fi
note "ceph: $(ceph --version)"
