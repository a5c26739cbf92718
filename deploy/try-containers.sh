#!/usr/bin/env bash
# Tries the containers for real: builds the image, brings docker-compose.yml up, goes the README's way through the
# published port, restarts each part under load, stops it while a request is under way; then the same with
# docker-compose.scale.yml. Ends with everything taken down, and exit code 0 when all of it held.
#
#   deploy/try-containers.sh [--no-build] [--keep]
#
# Needs docker with compose, and curl. Base images that no registry gives are made by deploy/containers/stand-ins.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

build=yes keep=
for argument in "$@"; do
  case $argument in
    --no-build) build= ;;
    --keep) keep=yes ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit 2 ;;
  esac
done

if docker compose version >/dev/null 2>&1; then compose_program=(docker compose); else compose_program=(docker-compose); fi
# Without buildx the old builder is the one that there is.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
token=try-$RANDOM$RANDOM$RANDOM
export BALANCER_ADMIN_TOKEN=$token
BALANCER_PORT=$(free_port)
BALANCER_ADMIN_PORT=$(free_port)
export BALANCER_PORT BALANCER_ADMIN_PORT
url=http://127.0.0.1:$BALANCER_PORT
admin=http://127.0.0.1:$BALANCER_ADMIN_PORT
scratch=$(mktemp -d "${TMPDIR:-/tmp}/balancer-try.XXXXXX")
project=balancer-try
file=docker-compose.yml
failures=0
lone=()

compose() { "${compose_program[@]}" --project-name "$project" --file "$file" "$@"; }
down() { compose down --volumes --timeout 5 >/dev/null 2>&1 || true; }
finish() {
  local status=$?
  load_stop || true
  if [ $status -ne 0 ] || [ $failures -ne 0 ]; then compose logs --no-color --timestamps --tail 400 2>/dev/null | grep -v '"status":' || true; fi
  [ ${#lone[@]} -eq 0 ] || docker rm --force "${lone[@]}" >/dev/null 2>&1 || true
  [ -n "$keep" ] || down
  rm -rf "$scratch"
}
trap finish EXIT

say() { printf '%s\n' "$*"; }
ok() { printf '  ok    %s\n' "$*"; }
wrong() { printf '  WRONG %s\n' "$*"; failures=$((failures + 1)); }
# holds TEXT CONDITION...: the condition is a command.
holds() { local text=$1; shift; if "$@"; then ok "$text"; else wrong "$text"; fi; }
# within SECONDS CONDITION...: waits until the command succeeds.
within() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}

api() { curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $token" "$@"; }
status() { curl -s -o /dev/null -w '%{http_code}' --max-time 10 "$@"; }
serves() { [ "$(status "$url/")" = 200 ]; }
# The statuses of N requests, sorted and counted: "2 200 1 429".
statuses() { for _ in $(seq "$1"); do status "$url/"; echo; done | sort | uniq -c | xargs; }
# Where requests of this machine come from, as containers see it.
gateway() { docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' "${project}_default"; }
container() { compose ps -q "$1"; }
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }

# Load: four clients, one request after the other; each writes a line with status, curl's exit code and the time.
loaders=()
load_start() {
  rm -f "$scratch"/load.*
  touch "$scratch/loading"
  for client in 1 2 3 4; do
    while [ -e "$scratch/loading" ]; do
      printf '%s %s\n' "$(curl -s -o /dev/null --max-time 10 -w '%{http_code} %{exitcode}' "$url/load")" "$(date +%T)"
    done >"$scratch/load.$client" 2>/dev/null &
    loaders+=($!)
  done
}
load_stop() {
  rm -f "$scratch/loading"
  [ ${#loaders[@]} -eq 0 ] || wait "${loaders[@]}" 2>/dev/null || true
  loaders=()
}
answered() { cat "$scratch"/load.* | wc -l; }
# At least N more answers than now, within a minute.
goes_on() { local to=$(($(answered) + $1)); within 60 eval "[ \$(answered) -ge $to ]"; }
# What was answered other than 200, by second: "3 503 0 13:00:01", nothing when all went well.
not_ok() { cat "$scratch"/load.* | grep -v '^200 0 ' | sort | uniq -c | xargs || true; }

# under_load TEXT COMMAND...: runs it in the middle of load and says what clients saw.
under_load() {
  local text=$1; shift
  load_start
  goes_on 50 || wrong "load starts"
  "$@" >/dev/null 2>&1
  within 60 serves || wrong "$text: serves again"
  goes_on 200 || wrong "$text: load goes on"
  load_stop
  seen=$(answered) bad=$(not_ok)
}

say "== images"
deploy/containers/stand-ins.sh
if [ -n "$build" ]; then
  started=$SECONDS
  docker build --tag balancer:local . >"$scratch/build.log" 2>&1 || { tail -n 40 "$scratch/build.log"; exit 1; }
  say "balancer:local built in $((SECONDS - started)) s"
fi
bytes() { docker image inspect --format '{{.Size}}' "$1"; }
base=$(sed -n 's/^FROM \(debian:[^ ]*\).*/\1/p' Dockerfile)
say "image: $(($(bytes balancer:local) / 1000000)) MB, of which $(($(bytes "$base") / 1000000)) MB are $base"
say "programs: $(docker run --rm --entrypoint /bin/sh balancer:local -c 'cd /usr/local/bin && du -m balancer test_backend' | awk '{print $2, $1 " MB"}' | xargs)"
holds "the image runs as nobody special" eval '[ "$(docker run --rm --entrypoint id balancer:local -u)" = 10001 ]'

say "== docker-compose.yml"
down
compose up -d >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log"; exit 1; }
holds "serves within a minute" within 60 serves
holds "docker says healthy" within 60 healthy balancer
echo=$(curl -s "$url/hello" -d '{"exaple":123}')
holds "a backend echoes: $echo" [ "$echo" = '{"http_method":"POST","request_uri":"/hello","your_message":{"exaple":123}}' ]
names=$(for _ in $(seq 20); do curl -sI "$url/"; done | sed -n 's/^[Xx]-[Bb]ackend: \([a-z]*\).*/\1/p' | sort -u | xargs)
holds "both backends have their share: $names" [ "$names" = "a b" ]
client=$(gateway)
limit() { printf '{"client_id":"%s","capacity":%s,"rate_per_sec":%s}' "$client" "$1" "$2"; }
holds "the API is not on the public port" [ "$(status "$url/limits")" = 200 ]
holds "the API asks for the token" [ "$(status "$admin/limits")" = 401 ]
holds "a limit for $client" [ "$(api "$admin/limits/create" -d "$(limit 2 0.01)")" = 201 ]
seen=$(statuses 3)
holds "two are allowed, the third is not: $seen" [ "$seen" = "2 200 1 429" ]
holds "raised" [ "$(api -X PUT "$admin/limits/update" -d "$(limit 3 0.01)")" = 204 ]
holds "allowed at once" serves
# What clients have left is saved each second.
sleep 2
docker kill "$(container balancer)" >/dev/null
compose up -d >/dev/null 2>&1
holds "killed, and back" within 60 eval '[ "$(status "$url/-/livez")" = 200 ]'
seen=$(statuses 4)
holds "the limit is still there, and nothing is left of it: $seen" [ "$seen" = "4 429" ]
holds "it keeps its own files" [ -z "$(docker logs "$(container balancer)" 2>&1 | grep 'nothing is kept')" ]
holds "deleted" [ "$(api -X DELETE "$admin/limits/delete?client_id=$client")" = 204 ]
holds "allowed again" serves

say "== restarts under load"
# What one gateway may ask for is the default of the shipped file; this load is more.
holds "no limit for the load" [ "$(api "$admin/limits/create" -d "$(limit 1000000 1000000)")" = 201 ]
for part in backend-a backend-b postgres; do
  under_load "$part" compose restart -t 10 "$part"
  holds "$part restarted: $seen requests, all answered 200${bad:+, but: $bad}" [ -z "$bad" ]
done
holds "the API is back" within 30 eval '[ "$(api "$admin/limits")" = 200 ]'
under_load balancer compose restart -t 20 balancer
holds "balancer restarted: $seen requests, no answer but 200${bad:+; while it was away: $bad (status and exit code of curl)}" \
  eval '! grep -qE "^[1-5]" <(cat "$scratch"/load.* | grep -v "^200 0 ")'

say "== stop"
head -c 300000 /dev/zero >"$scratch/body"
# Takes ten seconds to send.
curl -s -o /dev/null -w '%{http_code}' --limit-rate 30000 --data-binary "@$scratch/body" "$url/upload" >"$scratch/slow" &
slow=$!
in_flight() {
  [ "$(curl -s -H "Authorization: Bearer $token" "$admin/metrics" |
    awk '/^balancer_connections{state="(reading|busy)"}/ { sum += $2 } END { print sum + 0 }')" -ge 1 ]
}
within 10 in_flight || wrong "the upload is under way"
id=$(container balancer)
started=$SECONDS
compose stop balancer >/dev/null 2>&1
took=$((SECONDS - started))
wait "$slow" || true
code=$(docker inspect --format '{{.State.ExitCode}}' "$id")
holds "stopped after $took s with exit code $code (grace 20 s)" [ "$code" = 0 -a "$took" -lt 20 ]
holds "the request under way was answered $(cat "$scratch/slow")" [ "$(cat "$scratch/slow")" = 200 ]
[ -n "$keep" ] && [ $failures -ne 0 ] && exit 1
down

say "== docker-compose.scale.yml"
file=docker-compose.scale.yml
down
compose up -d >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log"; exit 1; }
holds "serves within a minute" within 60 serves
three() { [ "$(for _ in $(seq 30); do curl -sI "$url/" | sed -n 's/^X-Request-Id: //p'; done | wc -l)" = 30 ]; }
holds "thirty requests are answered" three
took_part() { docker logs "$(container "$1")" 2>&1 | grep -q '"path":"/"'; }
for instance in 1 2 3; do holds "balancer-$instance took part" within 10 took_part "balancer-$instance"; done
client=$(gateway)
# Whom balancer-1 hears, itself among them, and how many of them are cut off.
hears() { [ "$(curl -s -H "Authorization: Bearer $token" "$admin/v1/status" | grep -o '"hot_clients"' | wc -l)" = "$1" ]; }
cut_off() { curl -s -H "Authorization: Bearer $token" "$admin/v1/status" | grep -q '"cut_off":true'; }
holds "the three hear each other" within 20 hears 3
# admit FROM TO: of 90 requests one after the other so many are let through.
admit() {
  seen=$(statuses 90)
  allowed=$(echo "$seen" | sed -n 's/^\([0-9]*\) 200.*/\1/p')
  [ "${allowed:-0}" -ge "$1" ] && [ "${allowed:-0}" -le "$2" ]
}
# A full bucket again, in every instance that hears of it within cache.ttl.
afresh() { [ "$(api -X POST "$admin/v1/limits/$client/reset")" = 204 ] && sleep 3; }
# One admits 30; what three let through beyond is the bound of docs/budget.md, at what one curl after the other asks for.
holds "a limit of 30 through one of them" [ "$(api "$admin/limits/create" -d "$(limit 30 0)")" = 201 ]
# Longer than cache.ttl: every instance has seen it.
sleep 3
holds "the three take from one budget: 30 to 42 of 90" admit 30 42
say "        ($seen)"
docker kill "$(container balancer-3)" >/dev/null
holds "a killed one is missed" within 10 hears 2
holds "filled again" afresh
holds "two of them take from one budget: 30 to 42 of 90" admit 30 42
say "        ($seen)"
compose up -d >/dev/null 2>&1
holds "it is heard again" within 60 hears 3
holds "raised to 5 a second" [ "$(api -X PUT "$admin/limits/update" -d "$(limit 30 5)")" = 204 ]
holds "filled again" afresh
statuses 60 >/dev/null
docker pause "$(container postgres)" >/dev/null
holds "without PostgreSQL they are cut off" within 10 cut_off
began=$SECONDS
seen=$(statuses 400)
allowed=$(echo "$seen" | sed -n 's/^\([0-9]*\) 200.*/\1/p')
# A quarter more than one would, at most.
most=$(((30 + 5 * (SECONDS - began + 1)) * 5 / 4))
holds "and admit no more than $most meanwhile: $seen" [ "${allowed:-0}" -le "$most" ]
docker unpause "$(container postgres)" >/dev/null
holds "and hear each other again within seconds" within 6 eval 'hears 3 && ! cut_off'
within 30 eval '[ "$(api "$admin/limits")" = 200 ]' || wrong "the API is back"
holds "deleted" [ "$(api -X DELETE "$admin/limits/delete?client_id=$client")" = 204 ]
holds "no limit for the load" [ "$(api "$admin/limits/create" -d "$(limit 1000000 1000000)")" = 201 ]
sleep 3
for part in balancer-1 balancer-2 balancer-3 postgres backend-a; do
  under_load "$part" compose restart -t 25 "$part"
  holds "$part restarted: $seen requests, all answered 200${bad:+, but: $bad}" [ -z "$bad" ]
done
under_load balancer-2 docker kill "$(container balancer-2)"
holds "balancer-2 killed: $seen requests, at most those that it had are lost${bad:+: $bad}" \
  eval '[ "$(cat "$scratch"/load.* | grep -cv "^200 0 " || true)" -le 4 ]'

say "== who the client is (docs/recipes/docker.md)"
down
# Without a backend each request is answered 503, and logged with the client's address all the same.
lone() { local name=$1; shift; docker run --detach --rm --name "$project-$name" "$@" balancer:local >/dev/null; lone+=("$project-$name"); }
sees() { docker logs "$project-$1" 2>/dev/null | grep -q "\"client_addr\":\"$2\".*\"path\":\"/who\""; }
ports=("$(free_port)" "$(free_port)" "$(free_port)")
lone published -p "127.0.0.1:${ports[0]}:8080"
lone proxied -p "127.0.0.1:${ports[1]}:8080" -e BALANCER__RATE_LIMIT__TRUSTED_PROXIES='["172.16.0.0/12"]'
lone host --network host -e "BALANCER_LISTEN=127.0.0.1:${ports[2]}"
for port in "${ports[@]}"; do within 20 eval "[ \$(status http://127.0.0.1:$port/-/livez) = 200 ]" || wrong "port $port answers"; done
for port in "${ports[@]}"; do
  curl -s -o /dev/null --interface 127.0.0.5 -H 'X-Forwarded-For: 203.0.113.7' "http://127.0.0.1:$port/who"
done
bridge=$(docker inspect --format '{{.NetworkSettings.Networks.bridge.Gateway}}' "$project-published")
holds "published: the gateway, $bridge" within 5 sees published "$bridge"
holds "published, the gateway trusted: whom a proxy on the host names" within 5 sees proxied 203.0.113.7
holds "the host's network: the client itself" within 5 sees host 127.0.0.5

say
if [ $failures -ne 0 ]; then say "$failures did not hold"; exit 1; fi
say "all of it held, after $SECONDS s"
