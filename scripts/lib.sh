# Shared by the scripts: where the project is, words on the screen, and what must be installed.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1

if [ -t 1 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else BOLD='' DIM='' RED='' GREEN='' PLAIN=''; fi

say() { printf '%s\n' "${BOLD}==>${PLAIN} $*"; }
fail() { printf '%s\n' "${RED}error:${PLAIN} $*" >&2; exit 1; }

# need COMMAND=PACKAGE ...: installs the Debian packages whose command is missing.
need() {
  local pair missing=()
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null 2>&1 \
    || fail "these packages are missing, and this is no Debian: ${missing[*]}"
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "install as root: apt-get install ${missing[*]}"
    sudo=(sudo)
  fi
  say "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null || fail "could not install: ${missing[*]}"
}

need_rust() {
  command -v cargo >/dev/null 2>&1 || fail "Rust is missing; see https://www.rust-lang.org/tools/install"
}

# What the gateway and its laboratory use.
need_lab() {
  need cc=gcc bc=bc ip=iproute2 nft=nftables ping=iputils-ping iperf3=iperf3 curl=curl dig=dnsutils \
    nc=netcat-openbsd traceroute=traceroute ethtool=ethtool unshare=util-linux
  export PATH="$PATH:/usr/sbin:/sbin"
}

# What only some scenarios and benchmarks talk to. Debian's packages are unpacked into a cache, not
# installed: some are services that would start.
TOOLS="${XDG_CACHE_HOME:-$HOME/.cache}/rongate-lab/tools"
TOOL_PACKAGES=(aria2 babeld bird2 coturn dropbear-bin mtr-tiny nginx-light ngtcp2-client ngtcp2-server
  python3-aioice python3-libtorrent natpmpc python3-pyftpdlib rsyslog sip-tester wireguard-go)

need_tools() {
  local work options=(-qq -y --no-install-recommends -o Debug::NoLocking=1 -o APT::Sandbox::User=root)
  need ssh=openssh-client wg=wireguard-tools openssl=openssl
  export RONGATE_LAB_TOOLS="$TOOLS"
  [ "$(cat "$TOOLS/packages" 2>/dev/null)" = "${TOOL_PACKAGES[*]}" ] && return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
    || fail "some scenarios need ${TOOL_PACKAGES[*]}, and this is no Debian"
  say "unpacking ${TOOL_PACKAGES[*]} into $TOOLS"
  work=$(mktemp -d)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tree"
  options+=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
  if ! { timeout 120 apt-get "${options[@]}" update \
    && timeout 300 apt-get "${options[@]}" install --download-only "${TOOL_PACKAGES[@]}" \
    && for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
  } >"$work/log" 2>&1; then
    tail -n 3 "$work/log" >&2
    rm -rf "$work"
    fail "could not fetch: ${TOOL_PACKAGES[*]}"
  fi
  echo "${TOOL_PACKAGES[*]}" >"$work/tree/packages"
  rm -rf "$TOOLS"
  mkdir -p "$(dirname "$TOOLS")"
  mv "$work/tree" "$TOOLS"
  rm -rf "$work"
}
