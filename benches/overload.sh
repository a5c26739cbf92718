#!/usr/bin/env bash
# Clients that ask for more than the backends can answer, in front of Balancer (`fair` and `fifo`), HAProxy and nginx:
# who is answered within two seconds. Then the measured bound (`max_in_flight: "auto"`) beside fixed numbers and none.
# Says for each thing that has to hold whether it did, and ends with 1 when one did not.
#
#   benches/overload.sh                        all of it, about 20 minutes
#   ROWS=greedy,weights SECONDS_EACH=10 benches/overload.sh
#
# ROWS          greedy dear split weights priorities over halved polls slow_url seldom, separated by commas
# SECONDS_EACH  how long each run is counted (20)
# PROXIES       fair,fifo,haproxy,nginx: which ones, in the first three rows
# BIN           a Balancer to measure instead of building one (--release)
#
# Everything runs on loopback on ports that are free, and is ended with the script.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for program in nginx haproxy python3 cargo; do
  command -v "$program" >/dev/null || { echo "overload.sh needs $program (Debian: apt-get install nginx haproxy python3)"; exit 1; }
done
if [ -z "${BIN:-}" ]; then
  BIN=$(cargo build --release --locked --bin balancer --manifest-path "$root/Cargo.toml" --message-format json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/balancer\)".*/\1/p' | tail -n 1)
fi
export BIN
exec python3 "$root/benches/overload/run.py"
