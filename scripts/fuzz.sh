#!/usr/bin/env bash
# Fuzzes the parsers, whole nodes, the configuration and the control socket (fuzz/src), each for so
# many seconds with one process at low priority. New inputs collect below fuzz/target; `--keep`
# puts the smallest set of inputs that reaches as much into fuzz/corpus, which the tests replay.
#
#   scripts/fuzz.sh [--keep] [SECONDS] [TARGET ...]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

keep=0 seconds=60
case "${1:-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
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
      -merge=1 -max_len=512 -rss_limit_mb=2048
    rm -rf "$ROOT/fuzz/corpus/$target"
    mv "$merged" "$ROOT/fuzz/corpus/$target"
  fi
done
