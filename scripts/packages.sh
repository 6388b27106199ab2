# shellcheck shell=bash
# Sourced after env.sh by the scripts that install Debian packages.

install_packages() {
  local packages=("$@") sudo=()
  if ! command -v apt-get >/dev/null; then
    die "missing, by their Debian names: ${packages[*]}; there is no apt-get here, so install their like yourself"
  fi
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "run as root: apt-get install ${packages[*]}"
    sudo=(sudo)
  fi
  say "Installing Debian packages: ${packages[*]}"
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" ||
    die "apt-get could not install ${packages[*]} (does this release of Debian carry PostgreSQL $PG_MAJOR?)"
}
