#!/usr/bin/env bash
# Runs worlds drawn from seeds (see src/sim/swarm), optimised, on all processors: ten thousand, or
# those of FIRST..END. Ends with how many failed; each failure says how to see it again.
#
#   scripts/swarm.sh [FIRST..END]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  "") unset RONGATE_SEEDS ;;
  *..*) export RONGATE_SEEDS=$1 ;;
  *) fail "not a range of seeds: $1; try --help" ;;
esac

need_rust
exec cargo test -p rongate --profile lab --test swarm -- --ignored --nocapture ten_thousand
