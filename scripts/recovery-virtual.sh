#!/usr/bin/env bash
# How fast dead and bad paths are left, in virtual time with many seeds: the rows of tests/recovery.
# Every sample is kept in target/recovery-virtual.tsv as soon as it is taken.
#
#   scripts/recovery-virtual.sh              1,000 seeds for each row; some three quarters of an hour of a processor,
#                                            half of it for the 30 minutes of noise
#   scripts/recovery-virtual.sh --seeds N    so many; in rounds of 50, so that all rows get on alike
#   scripts/recovery-virtual.sh --add        goes on where an earlier run ended
#   scripts/recovery-virtual.sh --page       only the page, of the samples that there are
#   scripts/recovery-virtual.sh --write      writes docs/recovery-virtual.md too
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

SEEDS=1000 ADD='' ONLY_PAGE='' WRITE=''
while [ $# -gt 0 ]; do
  case "$1" in
    --seeds) SEEDS=${2:?--seeds needs a number}; shift 2 ;;
    --add) ADD=yes; shift ;;
    --page) ADD=yes ONLY_PAGE=yes; shift ;;
    --write) WRITE=yes; shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown option $1; try --help" ;;
  esac
done

export RONGATE_SAMPLES="$ROOT/target/recovery-virtual.tsv"
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
STATUS=0

measure() {
  local seeds=0
  while [ "$seeds" -lt "$SEEDS" ] && [ $STATUS -eq 0 ]; do
    seeds=$((seeds + 50 < SEEDS ? seeds + 50 : SEEDS))
    say "$seeds of $SEEDS seeds" >&2
    RONGATE_SEEDS=$seeds RUST_BACKTRACE=0 cargo test --quiet --locked --profile lab -p rongate \
      --test recovery -- --nocapture --test-threads "$(nproc)" >"$LOG" 2>&1
    STATUS=$?
  done
  if [ $STATUS -eq 0 ]; then
    # What control traffic costs at 50 nodes, and a storm of outages there.
    RUST_BACKTRACE=0 cargo test --quiet --locked --profile lab -p rongate --test budget --test large \
      -- --nocapture --ignored
    STATUS=$?
  fi
}

# The samples as rows of a table: number, then percentiles in milliseconds.
rows() {
  sort -t "$(printf '\t')" -k1,1 -k3,3n "$RONGATE_SAMPLES" | awk -F '\t' '
    function at(percent, place) {
      place = int(count * percent / 100); if (place * 100 < count * percent) place++
      return int(value[place < 1 ? 1 : place] / 1000)
    }
    function tell() {
      if (count) printf "| %s | %d | %d | %d | %d | %d |\n", name, count, at(50), at(90), at(99), at(100)
    }
    $1 != name { tell(); name = $1; count = 0 }
    { value[++count] = $3 }
    END { tell() }'
}

page() {
  cat <<PAGE
# Recovery in virtual time

Two sites with 200 packets of 64 bytes a second each way and two relays, real nodes over a made-up underlay. The
direct path is 5 to 40 ms long, either relay a little longer, as the seed has it. Every row is one event with
as many seeds as it says, in milliseconds of virtual time where nothing else is said. Gaps are those of the
receiving host, the worse of both directions, less what the relay adds to the delay. Outages and noise that last for
minutes are also tried with 20 packets a second, which allows more seeds. After 30, 10 or 3 % loss was left, nobody may
return within a minute of it. Written by
\`scripts/recovery-virtual.sh --write\` ($(git -C "$ROOT" describe --always --dirty 2>/dev/null \
    || echo "an unknown commit"), $(date -u +%F)); on real gateways: [recovery.md](recovery.md).

| event | seeds | p50 | p90 | p99 | worst |
|---|---|---|---|---|---|
$(rows)
PAGE
}

need_rust
mkdir -p "$ROOT/target"
[ -n "$ADD" ] && [ -e "$RONGATE_SAMPLES" ] || : >"$RONGATE_SAMPLES"
[ -n "$ONLY_PAGE" ] || measure
page
[ -n "$WRITE" ] && [ $STATUS -eq 0 ] && page >docs/recovery-virtual.md
[ $STATUS -eq 0 ] || { grep -E 'panicked|seed|FAILED' "$LOG" >&2; fail "a row does not keep its bound"; }
