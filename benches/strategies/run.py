"""Runs what benches/strategies.sh describes. Standard library only."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from local import Folder, free_ports  # noqa: E402: benches/local.py

BIN = os.environ["BIN"]
PARTS = os.environ.get("PARTS", "slow,hang").split(",")
CONNECTIONS = [int(n) for n in os.environ.get("CONNECTIONS", "16,48").split(",")]
ROUNDS = int(os.environ.get("ROUNDS", "6"))
SLICE = int(os.environ.get("SLICE", "2"))
RATE = float(os.environ.get("RATE", "300"))
SPAN = float(os.environ.get("SPAN", "8"))
MEAN_MS, SLOWER, SLOTS = 5, 10, 8
STRATEGIES = ["least_connections", "random_two", "peak_ewma", "round_robin", "hash", "first"]
HERE = os.path.dirname(os.path.abspath(__file__))

own = Folder("strategies")
folder, write = own.path, own.write
started = []


def start(args):
    log = open(os.path.join(folder, "log"), "ab")
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    started.append(process)
    return process


def end(process):
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fetch(port, path):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read()


def backends(means):
    ports = []
    for name, mean in zip("abc", means):
        [port] = free_ports(1)
        start([sys.executable, os.path.join(HERE, "backend.py"), str(port), name, str(mean), str(SLOTS)])
        ports.append(own.wait_for(port, "a backend"))
    return ports


NGINX = """daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit; worker_processes 2;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/p1; proxy_temp_path {folder}/p2; fastcgi_temp_path {folder}/p3;
  uwsgi_temp_path {folder}/p4; scgi_temp_path {folder}/p5;
  proxy_http_version 1.1; proxy_set_header Connection "";
  upstream pool {{ zone pool 256k; least_conn; {servers} keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://pool; }} }}
}}
"""

HAPROXY = """global
  nbthread 2
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
  http-reuse always
frontend f{number}
  bind 127.0.0.1:{port}
  default_backend b{number}
backend b{number}
  balance {balance}
{servers}
"""


def nginx(ports):
    [port] = free_ports(1)
    servers = " ".join(f"server 127.0.0.1:{to};" for to in ports)
    start(["nginx", "-c", write("nginx.conf", NGINX.format(folder=folder, port=port, servers=servers)), "-e", f"{folder}/log"])
    return own.wait_for(port, "nginx")


def haproxy(ports, balance):
    [port] = free_ports(1)
    servers = "\n".join(f"  server s{to} 127.0.0.1:{to}" for to in ports)
    text = HAPROXY.format(number=port, port=port, balance=balance, servers=servers)
    start(["haproxy", "-f", write(f"haproxy-{port}.cfg", text)])
    return own.wait_for(port, "haproxy")


def balancer(ports, strategy):
    [port] = free_ports(1)
    config = {
        "listen": f"127.0.0.1:{port}",
        "backends": [{"name": name, "url": f"http://127.0.0.1:{to}"} for name, to in zip("abc", ports)],
        "balancing": {"strategy": strategy, "hash_on": "uri"},
        "health_check": None,
        "database": {"url": f"sqlite:{folder}/{port}.db"},
        "log": {"access": False, "level": "warn"},
    }
    process = start([BIN, "run", "--config", write(f"balancer-{port}.json", json.dumps(config))])
    return own.wait_for(port, "balancer"), process


# ------------------------------------------------------------------ one is slow

def seconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def wrk(port, connections, duration):
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency", "--timeout", "10s", f"http://127.0.0.1:{port}/"],
                         capture_output=True, text=True, check=True).stdout
    percentile = lambda p: seconds(re.search(rf"^\s+{p}%\s+(\S+)", out, re.M).group(1)) * 1e3
    bad = [int(n) for n in re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", out)]
    return {"rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), "p50": percentile(50), "p99": percentile(99), "bad": sum(bad)}


def slow_part():
    ports = backends([MEAN_MS * SLOWER, MEAN_MS, MEAN_MS])
    doors = {"nginx least_conn": nginx(ports), "HAProxy leastconn": haproxy(ports, "leastconn"), "HAProxy random(2)": haproxy(ports, "random(2)")}
    theirs = list(doors)
    for strategy in STRATEGIES[:4]:
        doors[f"Balancer {strategy}"], _ = balancer(ports, strategy)
    served = lambda: [int(fetch(port, "/-/served")) for port in ports]
    print(f"\nOne of three backends ten times slower ({MEAN_MS * SLOWER} ms beside {MEAN_MS} ms, {SLOTS} at once); "
          f"{ROUNDS} slices of {SLICE} s, medians")
    for connections in CONNECTIONS:
        results = {name: [] for name in doors}
        for port in doors.values():
            wrk(port, connections, 1)
        names = list(doors)
        for turn in range(ROUNDS):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                before = served()
                result = wrk(doors[name], connections, SLICE)
                came = [now - then for now, then in zip(served(), before)]
                result["share"] = came[0] / max(sum(came), 1) * 100
                results[name].append(result)
        print(f"\n| {connections} connections | req/s | p50 ms | p99 ms | p99 beside the best of theirs | to the slow one | errors |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for name, own in results.items():
            median = lambda key: statistics.median(result[key] for result in own)
            best = [min(results[other][turn]["p99"] for other in theirs) for turn in range(ROUNDS)]
            ratio = statistics.median(result["p99"] / other for result, other in zip(own, best))
            print(f"| {name} | {median('rps'):.0f} | {median('p50'):.1f} | {median('p99'):.1f} | {ratio:.2f} | {median('share'):.1f} % | "
                  f"{sum(result['bad'] for result in own)} |", flush=True)


# ------------------------------------------------------------------ one hangs

class Loop:
    """Requests at a fixed rate, each on an idle connection or a new one, however many are under way."""

    def __init__(self, port):
        self.port, self.idle, self.took, self.wrong, self.under_way = port, [], {}, [], 0

    async def one(self):
        self.under_way += 1
        began = time.monotonic()
        try:
            reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"GET /{random.randrange(10**9)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head).group(1)))
            if head.split(b" ")[1] == b"200":
                self.took.setdefault(body.decode(), []).append((time.monotonic() - began) * 1e3)
                self.idle.append((reader, writer))
            else:
                self.wrong.append(head.split(b"\r\n")[0].decode())
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.wrong.append(repr(error))
        finally:
            self.under_way -= 1

    async def run(self, span):
        tasks, began = [], time.monotonic()
        for number in range(int(RATE * span)):
            delay = began + number / RATE - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(self.one()))
        # Whatever the well ones have.
        await asyncio.sleep(1)
        return tasks


async def hang_once(strategy):
    ports = backends([MEAN_MS] * 3)
    # `first` would give everything to the one that hangs until its share of the workers is full.
    port, process = balancer(ports, strategy)
    bad = ports[0]
    p99 = lambda took: statistics.quantiles(took, n=100)[98]
    well = lambda loop: [ms for name in "bc" for ms in loop.took.get(name, [])] or [ms for took in loop.took.values() for ms in took]
    warm = Loop(port)
    await warm.run(1)
    normal = Loop(port)
    await normal.run(SPAN)
    fetch(bad, "/-/mean/30000000")
    hanging = Loop(port)
    tasks = await hanging.run(SPAN)
    stuck = hanging.under_way
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for backend in started[-4:]:
        end(backend)
    before, after = p99(well(normal)), p99(well(hanging))
    wrong = normal.wrong + hanging.wrong
    answered = sum(len(took) for took in hanging.took.values())
    print(f"| {strategy} | {before:.1f} | {after:.1f} | {after / before:.2f} | {answered} | {stuck} | {len(wrong)} |", flush=True)
    return after < 2 * before and not wrong, wrong


def hang_part():
    print(f"\nOne of three backends hangs for 30 s; {RATE:g} requests a second for {SPAN:g} s before and as long meanwhile")
    print("\n| strategy | p99 before, ms | p99 of the others meanwhile, ms | ratio | answered | still with the one that hangs | lost |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    good = True
    for strategy in STRATEGIES:
        passed, wrong = asyncio.run(hang_once(strategy))
        if wrong:
            print(f"  {strategy}: {sorted(set(wrong))}")
        good &= passed
    return good


def main():
    good = True
    with open("/proc/loadavg") as file:
        print(f"load average at the start: {file.read().strip()}; {os.cpu_count()} cores; {BIN}")
    if "slow" in PARTS:
        slow_part()
    if "hang" in PARTS:
        good = hang_part()
    sys.exit(0 if good else 1)


try:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
finally:
    for process in reversed(started):
        if process.poll() is None:
            end(process)
    shutil.rmtree(folder, ignore_errors=True)
