#!/usr/bin/env bash
# Every test of the project: format, lints, documentation, unit and property tests, and scenarios
# on real processes in network namespaces. Installs what is missing. Ends with "N passed, N failed".
#
#   scripts/test.sh            everything
#   scripts/test.sh --quick    without the scenarios in network namespaces
set -uo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

quick=0
for argument in "$@"; do
  case "$argument" in
    --quick) quick=1 ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown argument $argument; try --help" ;;
  esac
done

need_rust
need_lab
need valgrind=valgrind

passed=0 failed=0 log=$(mktemp)
trap 'rm -f "$log"' EXIT

# stage NAME COMMAND...: runs it, shows its output, and adds up the results. A command that runs no
# tests counts as one.
stage() {
  local name=$1 ok bad start=$SECONDS status
  shift
  say "$name ${DIM}($*)${PLAIN}"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  ok=$(sed -nE 's/^test result: .* ([0-9]+) passed; .*/\1/p' "$log" | paste -sd+ | bc)
  bad=$(sed -nE 's/^test result: .* ([0-9]+) failed; .*/\1/p' "$log" | paste -sd+ | bc)
  [ -z "$ok" ] && { ok=0 bad=0; [ "$status" -eq 0 ] && ok=1; }
  [ "$status" -ne 0 ] && [ "${bad:-0}" -eq 0 ] && bad=1
  passed=$((passed + ok)) failed=$((failed + bad))
  printf '%s\n' "${DIM}    $name: $ok passed, $bad failed, $((SECONDS - start)) s${PLAIN}"
}

stage format cargo fmt --all --check
stage lints cargo clippy --workspace --all-targets --locked -- -D warnings
stage docs env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
# The fuzzer's targets compile. Checking links nothing, so libFuzzer itself need not be built.
stage fuzz-targets env CUSTOM_LIBFUZZER_PATH=/nonexistent/libfuzzer.a cargo check --locked --quiet \
  --manifest-path fuzz/Cargo.toml --target-dir target --bins
stage unit cargo test --workspace --locked --quiet --lib --bins
stage integration cargo test -p rongate --locked --quiet --test '*'
stage budgets cargo bench -p rongate --locked --quiet --bench datapath -- --check
if [ "$quick" -eq 0 ]; then
  need_tools
  stage build cargo build --workspace --release --locked --quiet
  stage scenarios cargo test -p netns-tests --release --locked --test '*'
fi

color=$GREEN
[ "$failed" -ne 0 ] && color=$RED
printf '%s\n' "$color"
printf '%s passed, %s failed\n' "$passed" "$failed"
printf '%s' "$PLAIN"
[ "$failed" -eq 0 ]
