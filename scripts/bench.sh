#!/usr/bin/env bash
# Benchmarks on real processes in network namespaces of their own. Installs what is missing, builds,
# measures, and leaves nothing behind but target/bench/.
#
#   scripts/bench.sh                        throughput, cost and delay; about 12 minutes and the build
#   scripts/bench.sh --quick                the same with fewer rounds; about 3 minutes and the build
#   scripts/bench.sh throughput [OPTION..]  the same, with the options of the program `bench`
#
#   --write FILE    writes the table to FILE too, as in --write docs/benchmarks.md
#   --rounds N --mode wire|super --only plain,direct,relay,exit,wireguard-go --beside NAME=PROGRAM
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# wireguard-go of 2023 is in Debian 13; what Debian 12 has is of 2022 and much slower.
WG_SUITE=trixie
WG_VERSION=0.0.20231211
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/rongate-bench"

usage() { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# Unpacks Debian's package wireguard-go into the cache, without installing it. Prints the program's
# path; on failure a sentence on standard error.
wireguard_go() {
  local program="$CACHE/wireguard-go-$WG_VERSION/usr/bin/wireguard-go" work mirror key options
  [ -x "$program" ] && { echo "$program"; return 0; }
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
    || { echo "this is no Debian" >&2; return 1; }
  key=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -r "$key" ] || { echo "$key is missing" >&2; return 1; }
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null \
    | grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1)
  mirror=${mirror:-http://deb.debian.org/debian}
  work=$(mktemp -d)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
  echo "deb [signed-by=$key] ${mirror%% *} $WG_SUITE main" >"$work/sources"
  options=(-qq -o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  if (cd "$work" && timeout 120 apt-get "${options[@]}" update \
    && timeout 60 apt-get "${options[@]}" download "wireguard-go=$WG_VERSION*" \
    && dpkg-deb -x wireguard-go_*.deb root) >"$work/log" 2>&1; then
    mkdir -p "$CACHE"
    rm -rf "$CACHE/wireguard-go-$WG_VERSION"
    mv "$work/root" "$CACHE/wireguard-go-$WG_VERSION"
    rm -rf "$work"
    echo "$program"
  else
    echo "Debian's package could not be fetched: $(tail -n 1 "$work/log")" >&2
    rm -rf "$work"
    return 1
  fi
}

throughput() {
  local program options=()
  need_rust
  need_lab
  need wg=wireguard-tools
  say "building"
  cargo build --workspace --release --locked --quiet || fail "the build failed"
  if program=$(wireguard_go); then
    options+=(--wireguard-go "$program")
  else
    say "wireguard-go $WG_VERSION is not available; it is left out of the comparison"
  fi
  local commit
  commit=$(git -C "$ROOT" describe --always --dirty 2>/dev/null) || commit=unknown
  options+=(--note "rongate at $commit, $(date -u +%F).")
  say "measuring ${DIM}(everything happens in network namespaces that end with it)${PLAIN}"
  target/release/bench throughput "${options[@]}" "$@"
}

case "${1:-}" in
  -h | --help) usage ;;
  throughput) shift; throughput "$@" ;;
  '' | -*) throughput "$@" ;;
  *) fail "unknown benchmark $1; try --help" ;;
esac
