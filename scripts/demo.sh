#!/usr/bin/env bash
# The demonstration: the overlay of the RON paper's Figure 2 on this machine, with real gateways,
# unmodified hosts, an outage and a way to the Internet. Installs what is missing, builds, and runs
# it; nothing has to be typed, and nothing stays behind.
#
#   scripts/demo.sh            under two minutes, once it is built
#   scripts/demo.sh --keep     leaves it running at the end, and says how to look around
#
# RONGATE_BIN names another gateway program to show. Exit status 0 if all worked as claimed.
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for argument in "$@"; do
  case "$argument" in
    --keep | --rootless) ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown argument $argument; try --help" ;;
  esac
done

need_rust
need_lab

say "building ${DIM}(the first time takes some minutes)${PLAIN}"
packages=(-p netns-tests)
[ -n "${RONGATE_BIN:-}" ] || packages+=(-p rongate)
cargo build --release --locked "${packages[@]}" --bins || fail "it does not build"

exec "${CARGO_TARGET_DIR:-target}/release/demo" "$@"
