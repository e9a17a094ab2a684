#!/usr/bin/env bash
# Benchmarks on real processes in network namespaces of their own. Installs what is missing, builds,
# measures, and leaves nothing behind but target/bench/ and other tunnels' programs in a cache.
#
#   scripts/bench.sh                  everything; prints beforehand how long it will take
#   scripts/bench.sh --quick          a first look: less than 5 minutes and the build
#   scripts/bench.sh --write          writes docs/benchmarks.md, docs/plots/ and README's figures too
#   scripts/bench.sh recovery         how fast dead and bad paths are left, beside OSPF with BFD,
#                                     Babel, tinc and Nebula; about 4 hours, with --quick 20 minutes;
#                                     --jobs N laboratories at a time (2); --add goes on where a run
#                                     ended (target/bench/recovery.jsonl has every sample); --write
#                                     writes docs/recovery.md and README's figures
#   scripts/bench.sh datapath         only what needs no input and output: nanoseconds of each step
#
#   --only KIND,.. --without KIND,..  plain, masquerade, direct, relay, bare-relay, exit, exit-routed, bare-tunnel,
#                                     bare-plain, naive, stock, stock-tuned, wireguard-go, boringtun,
#                                     gotatun, nebula, tinc
#   --bulk-only --tcp-seconds N       bulk transfers and round trips only; so long
#   --rounds N --mode wire|super      instead of 5 rounds of each mode
#   --add                             adds the rounds to those that are in target/bench/ already
#   --json                            prints all samples as JSON instead of the page
#   --beside NAME=PROGRAM             another build of rongate, measured beside this one
#   --no-datapath                     leaves out what needs no input and output
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Others' programs: from Debian 13, because what Debian 12 has is much slower; and built from source.
SUITE=trixie
WIREGUARD_GO=0.0.20231211
NEBULA=1.9.3
GOTATUN=0.10.2
BORINGTUN=0.7.1
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/rongate-bench"

usage() { sed -n '2,24s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# debian PACKAGE VERSION: unpacks a package of Debian 13 into the cache, without installing it.
# Prints the path of its program; on failure a sentence on standard error.
debian() {
  local name=$1 version=$2 program="$CACHE/$1-$2/usr/bin/$1" work mirror key options
  [ -x "$program" ] && { echo "$program"; return 0; }
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
    || { echo "this is no Debian" >&2; return 1; }
  key=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -r "$key" ] || { echo "$key is missing" >&2; return 1; }
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null \
    | grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1)
  [ -n "$mirror" ] || { echo "the package sources name no mirror of Debian" >&2; return 1; }
  work=$(mktemp -d)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tree"
  echo "deb [signed-by=$key] ${mirror%% *} $SUITE main" >"$work/sources"
  options=(-qq -o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  if (cd "$work" && timeout 120 apt-get "${options[@]}" update \
    && timeout 60 apt-get "${options[@]}" download "$name=$version*" \
    && dpkg-deb -x "$name"_*.deb root) >"$work/log" 2>&1; then
    mkdir -p "$CACHE"
    rm -rf "$CACHE/$name-$version"
    mv "$work/tree" "$CACHE/$name-$version"
    rm -rf "$work"
    echo "$program"
  else
    echo "Debian's package could not be fetched: $(tail -n 1 "$work/log")" >&2
    rm -rf "$work"
    return 1
  fi
}

# crate PACKAGE VERSION PROGRAM: builds a program from source into the cache. Prints its path.
crate() {
  local root="$CACHE/$1-$2" program="$CACHE/$1-$2/bin/$3"
  [ -x "$program" ] && { echo "$program"; return 0; }
  say "building $1 $2, once" >&2
  if cargo install --quiet --locked --root "$root" "$1@$2" >"/tmp/$1.log.$$" 2>&1; then
    rm -f "/tmp/$1.log.$$"
    echo "$program"
  else
    echo "it could not be built: $(tail -n 1 "/tmp/$1.log.$$")" >&2
    rm -f "/tmp/$1.log.$$"
    return 1
  fi
}

# peer KIND VERSION COMMAND..: adds a tunnel to OPTIONS, or says why not.
peer() {
  local kind=$1 version=$2 program
  shift 2
  if program=$("$@"); then
    OPTIONS+=(--peer "$kind=$program")
    PEERS+="${PEERS:+, }$kind $version"
  else
    say "$kind $version is not available; it is left out of the comparison"
  fi
}

tinc() {
  (need tincd=tinc) >&2 || return 1
  command -v tincd
}

datapath() {
  cargo bench --quiet --locked -p rongate --bench datapath -- "$@"
}

need_plots() {
  [ -r /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ] || need fonts=fonts-dejavu-core
}

throughput() {
  local quick='' steps=yes argument passed=()
  for argument in "$@"; do
    case "$argument" in
      --quick) quick=yes; passed+=("$argument") ;;
      --write) passed+=(--write "$ROOT") ;;
      --no-datapath) steps='' ;;
      *) passed+=("$argument") ;;
    esac
  done
  OPTIONS=() PEERS=''
  # Words go to standard error: standard output has the page or the JSON.
  exec 3>&1 1>&2
  need_rust
  need_lab
  need wg=wireguard-tools
  need_plots
  say "building"
  cargo build --workspace --release --locked --quiet || fail "the build failed"
  peer wireguard-go "$WIREGUARD_GO" debian wireguard-go "$WIREGUARD_GO"
  peer nebula "$NEBULA" debian nebula "$NEBULA"
  if [ -z "$quick" ]; then
    peer gotatun "$GOTATUN" crate gotatun-cli "$GOTATUN" gotatun
    peer boringtun "$BORINGTUN" crate boringtun-cli "$BORINGTUN" boringtun-cli
    peer tinc 1.0 tinc
  fi
  if [ -n "$steps" ]; then
    say "measuring the steps without input and output"
    mkdir -p target/bench
    datapath >target/bench/datapath.txt && OPTIONS+=(--datapath target/bench/datapath.txt)
  fi
  OPTIONS+=(--note "rongate at $(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo "an unknown commit"), $(date -u +%F).")
  [ -n "$PEERS" ] && OPTIONS+=(--note "Other tunnels: $PEERS.")
  say "measuring ${DIM}(everything happens in network namespaces that end with it)${PLAIN}"
  target/release/bench throughput "${OPTIONS[@]}" "${passed[@]}" >&3
}

recovery() {
  local nebula argument passed=()
  for argument in "$@"; do
    case "$argument" in
      --write) passed+=(--write "$ROOT") ;;
      *) passed+=("$argument") ;;
    esac
  done
  need_rust
  need_lab
  need_tools
  say "building"
  cargo build --workspace --release --locked --quiet || fail "the build failed"
  OPTIONS=(--peer "ospf-bfd=$TOOLS/usr/sbin/bird" --peer "babel=$TOOLS/usr/sbin/babeld")
  tinc >/dev/null && OPTIONS+=(--peer "tinc=$(tinc)")
  if nebula=$(debian nebula "$NEBULA"); then
    OPTIONS+=(--peer "nebula=$nebula")
  else
    say "nebula $NEBULA is not available; it is left out of the comparison"
  fi
  say "measuring ${DIM}(everything happens in network namespaces that end with it)${PLAIN}"
  target/release/recovery all "${OPTIONS[@]}" \
    --note "rongate at $(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo "an unknown commit"), $(date -u +%F)." \
    "${passed[@]}"
}

case "${1:-}" in
  -h | --help) usage ;;
  datapath) shift; need_rust; datapath "$@" ;;
  throughput) shift; throughput "$@" ;;
  recovery) shift; recovery "$@" ;;
  '' | -*) throughput "$@" ;;
  *) fail "unknown benchmark $1; try --help" ;;
esac
