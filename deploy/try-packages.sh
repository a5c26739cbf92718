#!/usr/bin/env bash
# Tries the packages for real: builds them (deploy/packages/build.sh), installs the .deb in a clean Debian, looks at what
# is there, runs it as the unit would, upgrades, removes and purges it; then unpacks the .tar.gz there and runs that. Exit
# code 0 when all of it held.
#
#   deploy/try-packages.sh [--no-build]
#
# Needs root, debootstrap, unshare and curl. Debian comes from apt's usual place; DEBIAN_MIRROR names another one,
# SUITE another release (bookworm). systemd is not started there: units are enabled, and what they run is run by hand.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
  "") deploy/packages/build.sh ;;
  --no-build) ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
deb=$(ls target/packages/*.deb)
tarball=$(ls target/packages/*.tar.gz)
version=$(dpkg-deb --field "$deb" Version)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/balancer-packages.XXXXXX")
root=$scratch/root
failures=0
running=
finish() {
  [ -z "$running" ] || kill -KILL "$running" 2>/dev/null || true
  umount "$root/proc" 2>/dev/null || true
  rm -rf --one-file-system "$scratch"
}
trap finish EXIT

say() { printf '%s\n' "$*"; }
ok() { printf '  ok    %s\n' "$*"; }
wrong() { printf '  WRONG %s\n' "$*"; failures=$((failures + 1)); }
# holds TEXT CONDITION...: the condition is a command.
holds() { local text=$1; shift; if "$@" >"$scratch/said" 2>&1; then ok "$text"; else wrong "$text"; sed 's/^/        /' "$scratch/said"; fi; }
not() { ! "$@"; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

say "a clean Debian"
# deb-systemd-helper is what systemd's own package brings nothing of and every Debian with systemd has.
debootstrap --variant=minbase --include=init-system-helpers,adduser "${SUITE:-bookworm}" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$scratch/log" 2>&1 ||
  { tail -n 20 "$scratch/log"; exit 1; }
mount -t proc proc "$root/proc"
# No service may be started in it.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# A port that is the same in every network of its own. Curl stays outside of the root.
net() { nsenter --net="/proc/$running/ns/net" "$@"; }
answers() { [ "$(net curl -s -o "$scratch/answer" -w '%{http_code}' --max-time 5 "$1")" = "$2" ]; }
contains() { grep -q -- "$1" "$2"; }
# run PROGRAM USER: with the unit's environment, in a network without anything else.
run() {
  local program=$1 user=$2 environment=()
  mapfile -t environment < <(sed -n 's/^Environment=//p' target/packages/stage/systemd/balancer.service)
  # shellcheck disable=SC2016
  unshare --net bash -c 'ip link set lo up 2>/dev/null; exec chroot --userspec="$1" "$2" /usr/bin/env -i "${@:4}" "$3" run' \
    bash "$user" "$root" "$program" "${environment[@]}" >"$scratch/out" 2>"$scratch/err" &
  running=$!
  for _ in $(seq 100); do grep -q '^admin on' "$scratch/out" && return 0; sleep 0.1; done
  wrong "it does not start:"; cat "$scratch/out" "$scratch/err"; return 1
}
stop() {
  kill -TERM "$running"
  wait "$running"
}

say "the .deb"
cp "$deb" "$root/tmp/balancer.deb"
holds "it installs" inside dpkg -i /tmp/balancer.deb
holds "the program is of that version" test "$(inside balancer --version)" = "balancer ${version%-*}"
holds "the user is there" inside getent passwd balancer
holds "service and socket are enabled" test -L "$root/etc/systemd/system/multi-user.target.wants/balancer.service" -a -L "$root/etc/systemd/system/sockets.target.wants/balancer.socket"
holds "the units name the program's place" contains 'ExecStart=/usr/bin/balancer run' "$root/lib/systemd/system/balancer.service"
holds "the API has a port of its own on loopback" contains '^Environment=BALANCER__ADMIN__LISTEN=127.0.0.1:9000' "$root/lib/systemd/system/balancer.service"
holds "there is a manual page" test -s "$root/usr/share/man/man1/balancer.1.gz"
holds "its configuration is one" inside env BALANCER_CONFIG=/etc/balancer/config.json balancer check

install -d -o "$(chroot "$root" id -u balancer)" "$root/var/lib/balancer"
if run /usr/bin/balancer balancer; then
  holds "it runs as its user" test "$(stat -c %u "/proc/$running")" = "$(chroot "$root" id -u balancer)"
  holds "it lives" answers http://127.0.0.1:9000/livez 200
  holds "the public port has no API" not answers http://127.0.0.1:8080/-/v1/status 200
  holds "a limit is set" net curl -sf http://127.0.0.1:9000/limits/create -d '{"client_id":"127.0.0.1","capacity":1,"rate_per_sec":0}'
  net curl -s -o "$scratch/answer" http://127.0.0.1:8080/
  holds "and in force" answers http://127.0.0.1:8080/ 429
  holds "it ends with 0" stop
fi

printf '{ "backends": ["http://127.0.0.1:9002"] }\n' > "$root/etc/balancer/config.json"
holds "it is installed over itself" inside dpkg -i /tmp/balancer.deb
holds "which keeps the configuration" contains 9002 "$root/etc/balancer/config.json"
holds "it is removed" inside dpkg -r balancer
holds "the program is gone" not test -e "$root/usr/bin/balancer"
holds "the configuration is kept" contains 9002 "$root/etc/balancer/config.json"
holds "the limits are kept" test -s "$root/var/lib/balancer/balancer.db"
holds "it is purged" inside dpkg -P balancer
holds "and nothing is left but its user" test ! -e "$root/etc/balancer/config.json" -a ! -e "$root/var/lib/balancer" -a ! -e "$root/etc/systemd/system/multi-user.target.wants/balancer.service"

say "the .tar.gz"
tar -C "$root/opt" -xzf "$tarball"
place=$(cd "$root" && ls -d opt/balancer-*)
install -D -m 644 "$root/$place/config.json" "$root/etc/balancer/config.json"
install -d -o nobody "$root/var/lib/balancer"
if run "/$place/balancer" nobody; then
  holds "it lives" answers http://127.0.0.1:9000/livez 200
  holds "it ends with 0" stop
fi
running=

say
if [ $failures -eq 0 ]; then say "all of it held"; else say "$failures did not hold"; exit 1; fi
