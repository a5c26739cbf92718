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
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
begin overload.sh nginx haproxy python3
exec python3 "$root/benches/overload/run.py"
