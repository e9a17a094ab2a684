#!/usr/bin/env bash
# Tries every deliberate fault of tests/mutants.txt on a copy of the tree: the test that the list
# names must fail with it, and pass without. All faults are built at once, each behind a switch, so
# that they cost one build. Ends with a table and how many were caught.
#
#   scripts/mutants.sh [WORDS]      only those whose description contains WORDS
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
need_rust

copy=$ROOT/target/mutants/tree
mkdir -p "$copy"
for part in src tests benches netns-tests examples docs fuzz; do
  rm -rf "${copy:?}/$part"
  cp -a "$ROOT/$part" "$copy/$part"
done
cp -a "$ROOT"/Cargo.* "$ROOT"/*.md "$ROOT"/*.yaml "$ROOT/rust-toolchain.toml" "$copy/"
rm -rf "$copy/fuzz/target"

names=() tests=()
name='' file='' old=''
while IFS= read -r line; do
  case "$line" in
    '' | '#'*) ;;
    '- '*) old=${line#- } ;;
    '+ '*)
      OLD=$old NEW=${line#+ } NUMBER=${#names[@]} perl -0pi -e '
        BEGIN { ($old, $new, $n) = @ENV{"OLD", "NEW", "NUMBER"}; }
        $found = () = /\Q$old\E/g;
        die "$ARGV: it occurs $found times, not once: $old\n" if $found != 1;
        $switch = "if crate::mutant($n) { $new } else { $old }";
        $switch = "($switch)" unless $old =~ /;$/;
        s/\Q$old\E/$switch/;
      ' "$copy/$file"
      ;;
    '= '*) names+=("$name") tests+=("${line#= }") ;;
    src/*) file=$line ;;
    *) name=$line ;;
  esac
done <"$ROOT/tests/mutants.txt"

cat >>"$copy/src/lib.rs" <<'RUST'

/// Whether a deliberate fault is switched on.
#[expect(missing_docs, clippy::all, reason = "a copy for trying faults")]
pub(crate) fn mutant(number: usize) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| std::env::var("MUTANT").ok()?.parse().ok()) == Some(number)
}
RUST

export CARGO_TARGET_DIR=$ROOT/target/mutants/target
say "building ${#names[@]} faults"
# Only the binaries that the list names, "--lib" or "--test NAME".
mapfile -t targets < <(printf '%s\n' "${tests[@]%% *}" | sort -u | sed '/^lib$/!s/^/--test=/; s/^lib$/--lib/')
binaries=$(cd "$copy" && cargo test -p rongate --locked "${targets[@]}" --no-run 2>&1 | tee /dev/stderr |
  sed -nE 's/^ *Executable .*(src\/lib\.rs|tests\/[a-z_]+\.rs) \((.*)\)$/\1 \2/p')
[ -n "$binaries" ] || fail "the faults do not compile"

# run TEST: runs the test of a binary, "BINARY NAME".
run() {
  local binary=${1%% *} filter=${1#"${1%% *}"} path
  case "$binary" in
    lib) path=$(sed -n 's/^src\/lib\.rs //p' <<<"$binaries") ;;
    *) path=$(sed -n "s/^tests\/$binary\.rs //p" <<<"$binaries") ;;
  esac
  (cd "$copy" && timeout 600 "$path" ${filter# } --test-threads 2 2>&1)
}

caught=0 missed=0
for number in "${!names[@]}"; do
  [[ ${names[$number]} == *"${1:-}"* ]] || continue
  if ! output=$(run "${tests[$number]}") || grep -q '^running 0 tests' <<<"$output"; then
    verdict="${RED}its test fails without it, or is not there${PLAIN}"
  elif output=$(MUTANT=$number run "${tests[$number]}"); then
    verdict="${RED}not caught${PLAIN}"
  else
    catcher=$(sed -nE 's/^test (.*) \.\.\. FAILED$/\1/p' <<<"$output" | head -1)
    verdict="${GREEN}caught${PLAIN} by ${catcher:-an abort}"
  fi
  case "$verdict" in *caught*by*) caught=$((caught + 1)) ;; *) missed=$((missed + 1)) ;; esac
  printf '%-62s %s\n' "${names[$number]}" "$verdict"
done
printf '\n%s\n' "$caught caught, $missed not caught"
[ "$missed" -eq 0 ]
