#!/usr/bin/env bash
# Builds Balancer and lets you try it: two echo backends, the balancer in front of them on SQLite in data/ (or on your
# PostgreSQL), and five lines to paste: limited, raised, and not lost by kill -9. Ctrl-C ends everything.
#
#   ./run.sh [--tls] [--postgres URL]
#
# With --tls it speaks https, too, with a certificate that is made for this machine in data/ and that nobody signed.
# Works from any folder. CARGO_TARGET_DIR is honoured. Ports 8080, 8443, 9001 and 9002 are taken when they are free,
# others when not.
set -euo pipefail

# A shell in the background of a script starts us with Ctrl-C ignored, which no trap can undo: start over without that.
if [ "$(trap -p INT)" = "trap -- '' SIGINT" ] && env --default-signal=INT true 2>/dev/null; then
  exec env --default-signal=INT bash "${BASH_SOURCE[0]}" "$@"
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s\n' "$*" >&2; }
fail() { say "run.sh: $*"; exit 1; }

database=
tls=
while [ $# -gt 0 ]; do
  case $1 in
    --postgres) [ $# -ge 2 ] || fail "--postgres needs a URL: postgres://USER:PASSWORD@HOST/DATABASE"; database=$2; shift 2 ;;
    --postgres=*) database=${1#--postgres=}; shift ;;
    --tls) tls=yes; shift ;;
    -h|--help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "run.sh: what is $1? Usage: ./run.sh [--tls] [--postgres URL]"; exit 2 ;;
  esac
done

command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.88 or newer from https://rustup.rs,
  or use Docker instead: docker compose up --build"
command -v cc >/dev/null || fail "a C compiler is missing (SQLite is built from source): install gcc, on Debian by
  apt-get install gcc libc6-dev"

if [ -n "$tls" ]; then
  command -v openssl >/dev/null || fail "openssl is missing, which makes the certificate of --tls: install it, or run without"
fi

# What takes time is said before it begins.
say "building balancer and an echo backend from $(grep -c '^\[\[package\]\]' "$root/Cargo.lock") packages (cargo build --profile quick)."
say "The first time takes about three minutes on two cores and fetches packages; later it takes seconds."
begun=$SECONDS
# The compiler tells where the programs are, wherever the target folder may be.
built=$(cargo build --profile quick --locked --bins --manifest-path "$root/Cargo.toml" --message-format json-render-diagnostics) ||
  fail "the build failed"
say "built in $((SECONDS - begun)) s. Now two echo backends start, and the balancer in front of them."
program() { printf '%s\n' "$built" | sed -n 's/.*"executable":"\([^"]*\/'"$1"'\)".*/\1/p' | tail -n 1; }
balancer_bin=$(program balancer)
backend_bin=$(program test_backend)
[ -x "$balancer_bin" ] && [ -x "$backend_bin" ] || fail "the build left no programs"

# Each program gets a process group of its own, so that Ctrl-C reaches this script alone and things end in order.
set -m
scratch=$(mktemp -d "${TMPDIR:-/tmp}/balancer-run.XXXXXX")

# The guard ends the programs when this script is gone, however it went: it reads their numbers from a pipe whose other
# end only this script holds. The balancer is told first, since it finishes its requests with the backends' help.
exec 9> >(
  trap '' INT TERM HUP
  programs=()
  while read -r number; do programs=("$number" ${programs[@]+"${programs[@]}"}); done
  for number in ${programs[@]+"${programs[@]}"}; do
    kill -TERM "$number" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$number" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$number" 2>/dev/null || true
  done
  rm -rf "$scratch"
)
finish() {
  trap '' INT TERM HUP
  exec 9>&-
  wait 2>/dev/null || true
  while [ -d "$scratch" ]; do sleep 0.05; done
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Whether somebody listens on that port of this machine.
taken() { (exec 8<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Starts an echo backend; `address` is where it listens.
start_backend() {
  local name=$1 port=$2 log="$scratch/$1" number
  if taken "$port"; then port=0; fi
  : >"$log"
  "$backend_bin" --port "$port" --name "$name" >"$log" 9>&- &
  number=$!
  echo "$number" >&9
  until address=$(sed -n 's/^listening on //p' "$log") && [ -n "$address" ]; do
    if ! kill -0 "$number" 2>/dev/null; then
      [ "$port" != 0 ] || fail "echo backend $name ended"
      # Somebody was faster.
      start_backend "$name" 0
      return
    fi
    sleep 0.05
  done
}
start_backend a 9001; a=$address
start_backend b 9002; b=$address

# What to paste, once the address and the balancer's process number are known. A limit may be left from the last time: then it
# is updated, not created.
hints() {
  local url=$1 number=$2 set_limit
  set_limit="$url/limits/create"
  if curl -fs "$url/limits/get?client_id=127.0.0.1" >/dev/null 2>&1; then set_limit="-X PUT $url/limits/update"; fi
  cat <<HINTS

Five lines for another terminal, one after the other (Ctrl-C here ends everything):

1. Through the balancer to an echo backend:

  curl -i $url/hello -d '{"exaple":123}'

2. Limit yourself to 2 requests at once and one more in 10 seconds; the third is refused, 429:

  curl $set_limit -d '{"client_id":"127.0.0.1","capacity":2,"rate_per_sec":0.1}'; curl -i "$url/[1-3]"

3. Raise the limit; you are let through at once:

  curl -X PUT $url/limits/update -d '{"client_id":"127.0.0.1","capacity":1000,"rate_per_sec":500}'; curl -i $url/

4. End the balancer in the hardest way. It is started again here, as systemd would:

  kill -9 $number

5. The limit survived:

  curl -s --retry 20 --retry-connrefused --retry-delay 1 '$url/limits/get?client_id=127.0.0.1'

More is in docs/guide.md.

HINTS
}

listen=127.0.0.1:8080
if taken 8080; then
  say "port 8080 is in use, so another one is taken"
  listen=127.0.0.1:0
fi
# What the caller's environment may say about some other balancer is not for this one.
unset "${!BALANCER_@}"
export BALANCER_LISTEN=$listen
export BALANCER__BACKENDS="[{\"name\":\"a\",\"url\":\"$a\"},{\"name\":\"b\",\"url\":\"$b\"}]"
if [ -n "$tls" ]; then
  cert=$root/data/localhost.pem key=$root/data/localhost.key
  if ! openssl x509 -in "$cert" -noout -checkend 86400 >/dev/null 2>&1 || [ ! -f "$key" ]; then
    mkdir -p "$root/data"
    (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=localhost \
      -addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -keyout "$key" -out "$cert" 2>"$scratch/openssl") ||
      fail "openssl made no certificate: $(cat "$scratch/openssl")"
    say "made a certificate for localhost: $cert"
  fi
  secure=127.0.0.1:8443
  if taken 8443; then secure=127.0.0.1:0; fi
  export BALANCER__TLS__LISTEN=$secure BALANCER__TLS__REDIRECT=false
  export BALANCER__TLS__CERTIFICATES="[{\"cert\":\"$cert\",\"key\":\"$key\"}]"
fi
if [ -n "$database" ]; then export BALANCER_DATABASE_URL=$database; fi

# Runs the balancer and waits until it has ended. The hints are printed the first time.
first=yes
balance() {
  rm -f "$scratch/number"
  "$balancer_bin" run --config "$root/config.json" 9>&- > >(
    trap '' INT TERM HUP
    exec 9>&-
    while IFS= read -r line; do
      printf '%s\n' "$line"
      case $line in
        "listening on http://"*)
          until [ -s "$scratch/number" ] || [ ! -d "$scratch" ]; do sleep 0.01; done
          printf '%s' "${line#listening on http://}" >"$scratch/address"
          [ -z "$first" ] || hints "${line#listening on }" "$(cat "$scratch/number")"
          [ -n "$tls" ] || exec cat ;;
        "listening on https://"*)
          printf '%s\n\n' "The same by https: curl --cacert $cert ${line#listening on }/hello"
          exec cat ;;
      esac
    done
  ) &
  local balancer=$!
  echo "$balancer" >&9
  echo "$balancer" >"$scratch/number"
  status=0
  wait "$balancer" || status=$?
}

balance
# 137 is what kill -9 leaves. Whatever else ends it is for the reader to see.
while [ "$status" = 137 ]; do
  say "the balancer was killed (kill -9): it is started again on the same address"
  first=
  BALANCER_LISTEN=$(cat "$scratch/address")
  balance
done
exit "$status"
