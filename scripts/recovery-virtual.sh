#!/usr/bin/env bash
# How fast dead and bad paths are left, in virtual time with many seeds: the rows of tests/recovery.rs.
#
#   scripts/recovery-virtual.sh              1,000 seeds for each row; about two hours of a processor
#   scripts/recovery-virtual.sh --seeds N    so many
#   scripts/recovery-virtual.sh --write      writes docs/recovery-virtual.md too
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SEEDS=1000 WRITE=''
while [ $# -gt 0 ]; do
  case "$1" in
    --seeds) SEEDS=${2:?--seeds needs a number}; shift 2 ;;
    --write) WRITE=yes; shift ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown option $1; try --help" ;;
  esac
done

need_rust
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
RONGATE_SEEDS=$SEEDS RUST_BACKTRACE=0 cargo test --quiet --locked --profile lab -p rongate \
  --test recovery -- --nocapture --test-threads "$(nproc)" >"$LOG" 2>&1
STATUS=$?
if [ $STATUS -eq 0 ]; then
  # What control traffic costs at 50 nodes, and a storm of outages there.
  RUST_BACKTRACE=0 cargo test --quiet --locked --profile lab -p rongate --test budget --test large \
    -- --nocapture --ignored
  STATUS=$?
fi
page() {
  cat <<PAGE
# Recovery in virtual time

Two sites with 200 packets of 64 bytes a second each way and two relays, real nodes over a made-up underlay. The
direct path is 5 to 40 ms long, either relay a little longer, as the seed has it. Every row is one event with
$SEEDS seeds, in milliseconds of virtual time. Gaps are those of the receiving host, the worse of both directions, less
what the relay adds to the delay. Written by \`scripts/recovery-virtual.sh --write\` ($(git -C "$ROOT" describe --always \
    --dirty 2>/dev/null || echo "an unknown commit"), $(date -u +%F)); on real gateways: [recovery.md](recovery.md).

| event | seeds | p50 | p90 | p99 | worst |
|---|---|---|---|---|---|
$(grep -oE '\| [^|]+ (\| [0-9]+ ){5}\|$' "$LOG" | sort)
PAGE
}
page
[ -n "$WRITE" ] && [ $STATUS -eq 0 ] && page >docs/recovery-virtual.md
[ $STATUS -eq 0 ] || { grep -E 'panicked|seed|FAILED' "$LOG" >&2; fail "a row does not keep its bound"; }
