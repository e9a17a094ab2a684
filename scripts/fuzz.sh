#!/usr/bin/env bash
# Fuzzes the parsers, whole nodes, the configuration and the control socket (fuzz/src), each for so
# many seconds with one process at low priority. New inputs collect below fuzz/target; `--keep`
# puts the smallest set of inputs that reaches as much into fuzz/corpus, which the tests replay.
# `--coverage` tells instead which part of the parsers' lines the inputs of fuzz/corpus reach.
#
#   scripts/fuzz.sh [--keep] [SECONDS] [TARGET ...]
#   scripts/fuzz.sh --coverage
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Everything that takes foreign bytes apart: inner packets, our datagrams, PCP, configurations,
# scenarios and traces, HTTP.
PARSERS=(src/packet src/wire src/nat/pcp src/config/{de,fault,key,tree,units}.rs
  src/config/written{,_class,_nat}.rs src/config/validate src/sim/scenario/{mod,trace}.rs
  src/gateway/http.rs)

coverage() {
  local folder=$ROOT/target/coverage tools binary
  need_rust
  rustup component add llvm-tools >/dev/null 2>&1 || fail "rustup cannot add llvm-tools"
  tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
  rm -rf "$folder"
  mkdir -p "$folder"
  printf '#!/bin/sh\nexec "$@" -C instrument-coverage\n' >"$folder/rustc"
  chmod +x "$folder/rustc"
  # Only our own code counts its lines.
  export RUSTC_WORKSPACE_WRAPPER=$folder/rustc LLVM_PROFILE_FILE=$folder/%p.profraw
  binary=$(cargo test -p rongate --locked --test corpora --no-run 2>&1 | tee /dev/stderr |
    sed -nE 's/^ *Executable .*\((.*)\)$/\1/p')
  [ -n "$binary" ] || fail "the targets do not compile"
  rm -f "$folder"/*.profraw
  "$binary" --quiet
  "$tools/llvm-profdata" merge -sparse "$folder"/*.profraw -o "$folder/all.profdata"
  "$tools/llvm-cov" report "$binary" -instr-profile="$folder/all.profdata" "${PARSERS[@]}" |
    awk '$1 ~ /\.rs$|^TOTAL$/ { printf "%-28s %6d lines %6d not reached %8s\n", $1, $8, $9, $10 }'
}

keep=0 seconds=60
case "${1:-}" in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --coverage) coverage; exit 0 ;;
  --keep) keep=1; shift ;;
esac
[[ ${1:-} =~ ^[0-9]+$ ]] && { seconds=$1; shift; }
targets=("$@")
[ ${#targets[@]} -eq 0 ] && targets=(parsers node config control)

need_rust
need g++=g++
command -v cargo-fuzz >/dev/null 2>&1 || cargo install --locked cargo-fuzz
# libFuzzer's counters are an option that stable compilers hide.
export RUSTC_BOOTSTRAP=1

for target in "${targets[@]}"; do
  found=$ROOT/fuzz/target/found/$target
  mkdir -p "$found"
  say "$target for $seconds s"
  nice -n 15 cargo fuzz run -s none "$target" "$found" "$ROOT/fuzz/corpus/$target" -- \
    -max_len=4096 -rss_limit_mb=2048 -max_total_time="$seconds" -print_final_stats=1
  if [ "$keep" -eq 1 ]; then
    merged=$(mktemp -d)
    nice -n 15 cargo fuzz run -s none "$target" "$merged" "$found" "$ROOT/fuzz/corpus/$target" -- \
      -merge=1 -max_len=4096 -rss_limit_mb=2048
    rm -rf "$ROOT/fuzz/corpus/$target"
    mv "$merged" "$ROOT/fuzz/corpus/$target"
  fi
done
