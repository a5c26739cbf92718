#!/usr/bin/env bash
# Sees to it that the images that Dockerfile and docker-compose.yml name are there. One that is here, or that can be
# pulled, is taken as it is. Where no registry answers, a stand-in of the same name is made from Debian's packages,
# this machine's Rust toolchain and the crates that cargo has fetched; that needs root and debootstrap.
#
#   deploy/containers/stand-ins.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s\n' "$*" >&2; }
fail() { say "stand-ins.sh: $*"; exit 1; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/balancer-images.XXXXXX")
trap 'rm -rf --one-file-system "$scratch"' EXIT

# Whether the image is here, or comes.
have() {
  docker image inspect "$1" >/dev/null 2>&1 && return
  timeout 600 docker pull --quiet "$1" >/dev/null 2>&1
}

# A folder with Debian's smallest system, made once.
debian() {
  [ -d "$scratch/debian" ] && return
  [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null ||
    fail "no registry answers; to make stand-ins of the images, be root and install debootstrap"
  say "  making a Debian system (a minute or two) …"
  debootstrap --variant=minbase bookworm "$scratch/debian" >"$scratch/log" 2>&1 || { tail -n 20 "$scratch/log" >&2; fail "debootstrap failed"; }
}

# install FOLDER PACKAGE...: Debian packages in a system below that folder.
install() {
  local folder=$1; shift
  cp /etc/resolv.conf "$folder/etc/resolv.conf"
  DEBIAN_FRONTEND=noninteractive chroot "$folder" apt-get -qq install -y --no-install-recommends "$@" >"$scratch/log" 2>&1 ||
    { tail -n 20 "$scratch/log" >&2; fail "apt-get install $*"; }
}

# What the official slim images leave out, too.
slim() {
  rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/{doc,man,locale,info}/* "$1"/var/log/*.log
}

# take FOLDER IMAGE CHANGE...: the folder as an image, with the Dockerfile lines that give it its settings.
take() {
  local folder=$1 image=$2 changes=(); shift 2
  for change in "$@" 'LABEL balancer.stand-in=true'; do changes+=(--change "$change"); done
  tar -C "$folder" -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

rust() {
  local system=$scratch/rust sysroot
  debian
  cp -a "$scratch/debian" "$system"
  install "$system" gcc libc6-dev ca-certificates
  slim "$system"
  say "  with $(rustc --version) and the crates of Cargo.lock"
  sysroot=$(rustc --print sysroot)
  mkdir -p "$system/usr/local/rust" "$system/usr/local/cargo/registry"
  tar -C "$sysroot" --exclude=./share --exclude='*-src' -c . | tar -C "$system/usr/local/rust" -x
  # Everything that the lock file names, so that the build inside asks nobody.
  cargo fetch --quiet --locked --manifest-path "$root/Cargo.toml"
  tar -C "${CARGO_HOME:-$HOME/.cargo}/registry" -c cache index | tar -C "$system/usr/local/cargo/registry" -x
  take "$system" "$1" 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    'ENV CARGO_HOME=/usr/local/cargo' 'ENV CARGO_NET_OFFLINE=true' 'CMD ["bash"]'
}

slim_debian() {
  debian
  cp -a "$scratch/debian" "$scratch/slim"
  slim "$scratch/slim"
  take "$scratch/slim" "$1" 'CMD ["bash"]'
}

# The parts of the official image's start that the compose files lean on: POSTGRES_USER, _PASSWORD and _DB at the first
# start, the data folder, fast shutdown at SIGINT.
postgres() {
  local system=$scratch/postgres
  debian
  cp -a "$scratch/debian" "$system"
  mkdir -p "$system/etc/postgresql-common"
  echo 'create_main_cluster = false' >"$system/etc/postgresql-common/createcluster.conf"
  install "$system" postgresql
  slim "$system"
  say "  with PostgreSQL $(ls "$system/usr/lib/postgresql")"
  cat >"$system/usr/local/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/bash
set -euo pipefail
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
data=/var/lib/postgresql/data
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
mkdir -p "$data" /var/run/postgresql
chown postgres:postgres "$data" /var/run/postgresql
if [ ! -s "$data/PG_VERSION" ]; then
  secret=$(mktemp)
  echo "$POSTGRES_PASSWORD" >"$secret"
  chown postgres "$secret"
  as initdb -D "$data" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile="$secret" >/dev/null
  rm "$secret"
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
  as pg_ctl -D "$data" -w start -o "-c listen_addresses=''" >/dev/null
  PGPASSWORD=$POSTGRES_PASSWORD as createdb -h /var/run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB"
  as pg_ctl -D "$data" -w stop >/dev/null
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -D "$data" -c listen_addresses='*'
ENTRYPOINT
  chmod +x "$system/usr/local/bin/docker-entrypoint.sh"
  take "$system" "$1" 'ENTRYPOINT ["docker-entrypoint.sh"]' 'VOLUME /var/lib/postgresql/data' \
    "ENV PATH=$(cd "$system" && echo usr/lib/postgresql/*/bin | sed 's|^|/|'):/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  # An import cannot say this one: SIGINT ends PostgreSQL without waiting for its clients.
  printf 'FROM %s\nSTOPSIGNAL SIGINT\n' "$1" | DOCKER_BUILDKIT=0 docker build --quiet --tag "$1" - >/dev/null
}

builder=$(sed -n 's/^FROM \(rust:[^ ]*\).*/\1/p' "$root/Dockerfile")
base=$(sed -n 's/^FROM \(debian:[^ ]*\).*/\1/p' "$root/Dockerfile")
store=$(sed -n 's/^ *image: \(postgres:.*\)/\1/p' "$root/docker-compose.yml" | head -n 1)
for image in "$base" "$builder" "$store"; do
  if have "$image"; then
    kind=image
    [ "$(docker image inspect --format '{{index .Config.Labels "balancer.stand-in"}}' "$image")" = true ] && kind=stand-in
    say "$image: the $kind is here"
    continue
  fi
  say "$image: no registry has it, making a stand-in"
  case $image in
    rust:*) rust "$image" ;;
    debian:*) slim_debian "$image" ;;
    *) postgres "$image" ;;
  esac
done
