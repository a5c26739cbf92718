"""Runs the comparison that benches/compare.sh describes. Standard library only."""

import concurrent.futures
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from local import Folder, free_ports  # noqa: E402: benches/local.py

TICK = os.sysconf("SC_CLK_TCK")
ENGINE = os.environ.get("ENGINE", "auto")
# Of Balancer; the bound on requests that wait for a backend's head.
WORKERS = int(os.environ["WORKERS"]) if "WORKERS" in os.environ else None
ROUNDS = int(os.environ.get("ROUNDS", "6"))
SLICE = int(os.environ.get("SLICE", "2"))  # wrk takes whole seconds
ALL_ROWS = ["tiny64", "tiny256", "16k", "1m", "upload", "refuse", "connect", "slow512", "beside", "tls64", "tls1m", "tlsfull", "tlsresumed", "storm", "h2_16x10", "h2_256x4", "mix", "mixalone", "stall", "ttfb", "idle10k"]
ROWS = [row for row in os.environ.get("ROWS", ",".join(ALL_ROWS)).split(",") if row]
PROXIES = os.environ.get("PROXIES", "nginx,haproxy,balancer,go").split(",")
# Descriptors that a process may have; a proxy needs two a connection.
FILES = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)
HALF = FILES // 2 - 200
IDLE = min(10_000, HALF - 300)

own = Folder("compare")
folder, write, wait_for = own.path, own.write, own.wait_for
started = []


def start(args, env=None, log="log", cwd=None):
    out = open(os.path.join(folder, log), "ab")
    process = subprocess.Popen(args, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=cwd or folder,
                               env={**os.environ, **(env or {})}, start_new_session=True)
    started.append(process)
    return process


def end_all():
    for process in reversed(started):
        if process.poll() is None:
            process.terminate()
    for process in reversed(started):
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------ configurations

NGINX_COMMON = """daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err crit;
worker_processes {workers}; worker_rlimit_nofile {files};
events {{ worker_connections {half}; }}
"""

BACKEND = NGINX_COMMON + """http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nopush on;
  open_file_cache max=16;
  client_body_temp_path {folder}/b1; proxy_temp_path {folder}/b2; fastcgi_temp_path {folder}/b3;
  uwsgi_temp_path {folder}/b4; scgi_temp_path {folder}/b5;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/www;
    location = /tiny {{ return 200 "ok"; }} }}
}}
"""

NGINX = NGINX_COMMON + """http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
  client_max_body_size 0; proxy_request_buffering off;
  client_body_temp_path {folder}/p1; proxy_temp_path {folder}/p2; fastcgi_temp_path {folder}/p3;
  uwsgi_temp_path {folder}/p4; scgi_temp_path {folder}/p5;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  limit_req_zone $binary_remote_addr zone=z:10m rate=1r/m;
  limit_req_status 429; limit_req_log_level info;
  upstream fast {{ server 127.0.0.1:{fast}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream sink {{ server 127.0.0.1:{sink}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream slow {{ server 127.0.0.1:{slow}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream both {{ least_conn; server 127.0.0.1:{fast}; server 127.0.0.1:{slow}; keepalive 1024;
                  keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{main} backlog=4096; location / {{ proxy_pass http://fast; }} }}
  server {{ listen 127.0.0.1:{up} backlog=4096; location / {{ proxy_pass http://sink; }} }}
  server {{ listen 127.0.0.1:{late} backlog=4096; location / {{ proxy_pass http://slow; }} }}
  server {{ listen 127.0.0.1:{mixed} backlog=4096; location / {{ proxy_pass http://both; }} }}
  upstream pair {{ least_conn; server 127.0.0.1:{fast}; server 127.0.0.1:{sink}; keepalive 1024;
                  keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{paired} backlog=4096; location / {{ proxy_pass http://pair; }} }}
  server {{ listen 127.0.0.1:{limited} backlog=4096; location / {{ limit_req zone=z; proxy_pass http://fast; }} }}
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_session_cache off;
  ssl_protocols TLSv1.2 TLSv1.3; http2_max_requests 1000000000;
  server {{ listen 127.0.0.1:{beside_secure} backlog=4096; location / {{ proxy_pass http://fast; }} }}
  server {{ listen 127.0.0.1:{secure} backlog=4096 ssl http2; location / {{ proxy_pass http://fast; }} }}
}}
"""

HAPROXY = """global
  nbthread 2
  maxconn {half}
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
  timeout http-keep-alive 600s
  option forwardfor
  http-reuse always
frontend main
  bind 127.0.0.1:{main}
  default_backend fast
frontend up
  bind 127.0.0.1:{up}
  default_backend sink
frontend late
  bind 127.0.0.1:{late}
  default_backend slow
frontend mixed
  bind 127.0.0.1:{mixed}
  default_backend both
frontend paired
  bind 127.0.0.1:{paired}
  default_backend pair
frontend beside_secure
  bind 127.0.0.1:{beside_secure}
  default_backend fast
frontend secure
  bind 127.0.0.1:{secure} ssl crt {folder}/pair.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2
  default_backend fast
frontend limited
  bind 127.0.0.1:{limited}
  stick-table type ip size 100k expire 10m store http_req_rate(60s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1 }}
  default_backend fast
backend fast
  server a 127.0.0.1:{fast}
backend sink
  server a 127.0.0.1:{sink}
backend slow
  server a 127.0.0.1:{slow}
backend pair
  balance leastconn
  server a 127.0.0.1:{fast}
  server b 127.0.0.1:{sink}
backend both
  balance leastconn
  server a 127.0.0.1:{fast}
  server b 127.0.0.1:{slow}
"""


def balancer_config(port, backends, limit, beside=None):
    return {
        "listen": f"127.0.0.1:{port}",
        "frontend": {"engine": ENGINE, "workers": WORKERS, "max_connections": 20000, "max_connections_per_ip": 20000, "idle_timeout": "600s",
                     "max_body_bytes": 1 << 30},
        "backends": [{"name": name, "url": f"http://127.0.0.1:{to}"} for name, to in backends],
        "health_check": None,
        # A limit that nobody reaches: the limiter works and its fields stand in every answer.
        "rate_limit": {"default": limit},
        "database": {"url": f"sqlite:{folder}/balancer-{port}.db"},
        "log": {"access": False, "level": "warn"},
        **({"listen": f"127.0.0.1:{beside}", "tls": {
            "listen": f"127.0.0.1:{port}", "redirect": False,
            "certificates": [{"cert": f"{folder}/cert.pem", "key": f"{folder}/key.pem"}],
        }} if beside else {}),
    }


# ------------------------------------------------------------------ measuring

class Proxy:
    """One proxy: its processes, and the port of each of its listeners."""

    def __init__(self, name, processes, ports):
        self.name, self.processes, self.ports = name, processes, ports

    def pids(self, listener=None):
        roots = [p.pid for k, p in self.processes.items() if listener is None or k in (listener, "all")]
        found, queue = [], roots
        while queue:
            pid = queue.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as file:
                        queue.extend(int(child) for child in file.read().split())
            except OSError:
                pass
        return found

    def cpu(self, listener):
        total = 0
        for pid in self.pids(listener):
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def switches(self, listener):
        total = 0
        for pid in self.pids(listener):
            for task in os.listdir(f"/proc/{pid}/task"):
                try:
                    with open(f"/proc/{pid}/task/{task}/status") as file:
                        total += sum(int(n) for n in re.findall(r"ctxt_switches:\s+(\d+)", file.read()))
                except OSError:
                    pass
        return total

    def rss(self, listener):
        """Resident bytes; what processes share is counted once (proportional set size)."""
        total = 0
        for pid in self.pids(listener):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M).group(1)) * 1024
        return total


def seconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def wrk(port, path, connections, duration, script=None, scheme="http"):
    args = ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency", "--timeout", "10s"]
    if script:
        args += ["-s", script]
    out = subprocess.run([*args, f"{scheme}://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
    percentile = lambda p: seconds(re.search(rf"^\s+{p}%\s+(\S+)", out, re.M).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return {
        "requests": int(re.search(r"(\d+) requests in", out).group(1)),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
        "p50": percentile(50), "p99": percentile(99),
        "errors": sum(int(n) for n in errors.groups()) if errors else 0,
        "bad": int(bad.group(1)) if bad else 0,
    }


def h2load(port, path, clients, streams, duration):
    out = subprocess.run(["h2load", f"-c{clients}", f"-m{streams}", f"-D{duration}", "--warm-up-time=0",
                          f"https://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True).stdout
    done = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", out)
    count, _, failed, errored = map(int, done.groups())
    # It tells no percentiles: the longest and the mean.
    times = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", out).groups()
    bad = sum(int(n) for n in re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out).groups())
    return {"requests": count, "rps": count / duration, "p50": seconds(times[2]), "p99": seconds(times[1]),
            "errors": failed + errored, "bad": bad}


def handshakes(port, clients, duration, is_resumed):
    """A new TLS connection for each request, with the session of the one before or without."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # TLS 1.2 has its ticket when the handshake is over; with 1.3 it comes behind the answer.
    until, counts, errors, times = time.monotonic() + duration, [0] * clients, [0], []

    def client(number):
        session = None
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as plain:
                    with context.wrap_socket(plain, session=session) as secure:
                        secure.sendall(b"GET /tiny HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        while secure.recv(4096):
                            pass
                        if session and not secure.session_reused:
                            errors[0] += 1
                        session = secure.session if is_resumed else None
            except OSError:
                errors[0] += 1
            times.append(time.monotonic() - began)
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    times.sort()
    return {"requests": sum(counts), "rps": sum(counts) / duration, "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100], "errors": errors[0], "bad": 0}


# row: listener, path, connections, script, whether other statuses than 2xx are what is wanted
LOADS = {
    "tiny64": ("main", "/tiny", 64, None, False),
    "tiny256": ("main", "/tiny", 256, None, False),
    "16k": ("main", "/16k", 64, None, False),
    "1m": ("main", "/1m", 16, None, False),
    "upload": ("up", "/", 16, "upload", False),
    "refuse": ("limited", "/tiny", 64, None, True),
    "connect": ("main", "/tiny", 64, "close", False),
    "slow512": ("late", "/", 512, None, False),
    "mix": ("mixed", "/tiny", 64, None, False),
    "paired": ("paired", "/tiny", 64, None, False),
    "tls64": ("secure", "/tiny", 64, None, False),
    "tls1m": ("secure", "/1m", 16, None, False),
    "tlsfull": ("secure", "/tiny", 4, "full", False),
    "tlsresumed": ("secure", "/tiny", 4, "resumed", False),
    "h2_16x10": ("secure", "/tiny", (16, 10), None, False),
    "h2_256x4": ("secure", "/tiny", (256, 4), None, False),
}
TITLES = {
    "tiny64": "2-byte answers, 64 connections", "tiny256": "2-byte answers, 256 connections",
    "16k": "16 KiB answers, 64 connections", "1m": "1 MiB answers, 16 connections",
    "upload": "1 MiB uploads, 16 connections", "refuse": "refused with 429, 64 connections",
    "connect": "2-byte answers, a new connection each, 64 clients",
    "slow512": "512 clients on a backend that takes 100 ms", "mix": "one fast and one 100 ms backend, 64 connections",
    "mixalone": "CPU per request with a 100 ms backend beside the fast one, as a ratio to the fast one alone",
    "tls64": "2-byte answers over TLS, 64 connections", "tls1m": "1 MiB answers over TLS, 16 connections",
    "tlsfull": "a TLS connection each, full handshakes (P-256)", "tlsresumed": "a TLS connection each, resumed",
    "h2_16x10": "HTTP/2 over TLS, 16 connections of 10 streams (p99: the longest)",
    "h2_256x4": "HTTP/2 over TLS, 256 connections of 4 streams (p99: the longest)",
    "storm": "64 kept plain connections beside 1,000 TLS handshakes at once",
    "beside": "64 clients of 2-byte answers beside 16 that fetch 1 MiB, both at once",
    "stall": "two fast backends, one of which stalls for 5 s, 64 connections",
    "ttfb": "from a request for an event stream to its first event, ms",
    "idle10k": f"{IDLE:,} idle kept connections",
}


def slice_of(proxy, row, duration):
    listener, path, connections, script, refusals = LOADS[row]
    cpu, switches = proxy.cpu(listener), proxy.switches(listener)
    port = proxy.ports[listener]
    if script in ("full", "resumed"):
        result = handshakes(port, connections, duration, script == "resumed")
    elif row.startswith("h2_"):
        result = h2load(port, path, *connections, duration)
    else:
        scheme = "https" if listener == "secure" else "http"
        result = wrk(port, path, connections, duration, script and os.path.join(folder, f"{script}.lua"), scheme)
    done = max(result["requests"], 1)
    result["cpu"] = (proxy.cpu(listener) - cpu) / done
    result["ctx"] = (proxy.switches(listener) - switches) / done
    result["rss"] = proxy.rss(listener)
    wrong = result["requests"] - result["bad"] if refusals else result["bad"]
    result["wrong"] = result["errors"] + (wrong if not refusals or wrong > 5 else 0)
    return result


def row(name, proxies):
    results = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        slice_of(proxy, name, 1)  # warm
    for turn in range(ROUNDS):
        at = turn % len(proxies)
        for proxy in proxies[at:] + proxies[:at]:
            results[proxy.name].append(slice_of(proxy, name, SLICE))
    median = lambda which, key: statistics.median(r[key] for r in results[which])

    def ratio(which, key):
        # Slices of one turn lie side by side in time: their ratio is free of the machine's drift.
        pairs = zip(results[which], results["nginx"])
        return statistics.median(mine[key] / theirs[key] if theirs[key] else float("nan") for mine, theirs in pairs)

    print(f"\n{name}: {TITLES[name]}")
    print(f"  {'':9}{'CPU/req':>10}{'×nginx':>8}{'ctx/req':>9}{'req/s':>9}{'×nginx':>8}{'p50 ms':>9}{'p99 ms':>9}{'p99×':>7}{'RSS MiB':>9}  errors")
    for proxy in proxies:
        which = proxy.name
        print(f"  {which:9}{median(which, 'cpu') * 1e6:>8.1f}µs{ratio(which, 'cpu'):>8.2f}{median(which, 'ctx'):>9.2f}"
              f"{median(which, 'rps'):>9.0f}{ratio(which, 'rps'):>8.2f}{median(which, 'p50') * 1e3:>9.2f}{median(which, 'p99') * 1e3:>9.2f}"
              f"{ratio(which, 'p99'):>7.2f}{median(which, 'rss') / 2**20:>9.1f}  {sum(r['wrong'] for r in results[which])}", flush=True)


def beside(proxies):
    """Light clients and heavy ones on the same proxy at the same time."""
    print(f"\nbeside: {TITLES['beside']}")
    results = {proxy.name: [] for proxy in proxies}
    for turn in range(ROUNDS):
        at = turn % len(proxies)
        for proxy in proxies[at:] + proxies[:at]:
            with concurrent.futures.ThreadPoolExecutor() as threads:
                heavy = threads.submit(wrk, proxy.ports["main"], "/1m", 16, SLICE)
                light = wrk(proxy.ports["main"], "/tiny", 64, SLICE)
                results[proxy.name].append((light["rps"], light["p99"], heavy.result()["rps"]))
    for proxy in proxies:
        mine, theirs = results[proxy.name], results["nginx"]
        median = lambda at: statistics.median(row[at] for row in mine)
        ratio = lambda at: statistics.median(row[at] / other[at] for row, other in zip(mine, theirs))
        print(f"  {proxy.name:9}light {median(0):>8.0f}/s {ratio(0):>5.2f} × nginx, p99 {median(1) * 1e3:>6.2f} ms {ratio(1):>5.2f} ×;"
              f" heavy {median(2):>6.0f} MiB/s {ratio(2):>5.2f} ×", flush=True)


def storm(proxies):
    """What requests on plain connections wait for while many clients shake hands."""
    print(f"\nstorm: {TITLES['storm']}")
    results = {proxy.name: [] for proxy in proxies}

    def hello(port, done):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sockets = []
        for _ in range(1000):
            plain = socket.create_connection(("127.0.0.1", port), 10)
            secure = context.wrap_bio(into := ssl.MemoryBIO(), out := ssl.MemoryBIO())
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                pass
            sockets.append((plain, secure, into, out.read()))
        [plain.sendall(hello) for plain, _, _, hello in sockets]
        for plain, *_ in sockets:
            # The server's whole flight is what costs.
            done.append(len(plain.recv(4096)) > 0)
            plain.close()

    for turn in range(ROUNDS):
        at = turn % len(proxies)
        for proxy in proxies[at:] + proxies[:at]:
            done = []
            storming = threading.Thread(target=hello, args=(proxy.ports["secure"], done))
            storming.start()
            plain = wrk(proxy.ports["beside_secure"], "/tiny", 64, SLICE)
            storming.join()
            results[proxy.name].append((plain["p99"], plain["rps"], sum(done)))
    for proxy in proxies:
        mine, theirs = results[proxy.name], results["nginx"]
        median = lambda at: statistics.median(row[at] for row in mine)
        ratio = statistics.median(row[0] / other[0] for row, other in zip(mine, theirs))
        print(f"  {proxy.name:9}p99 {median(0) * 1e3:>7.2f} ms {ratio:>5.2f} × nginx, {median(1):>7.0f} req/s, {median(2):.0f} handshakes answered", flush=True)


def mixalone(proxies):
    """Each proxy beside itself."""
    print(f"\nmixalone: {TITLES['mixalone']}")
    for proxy in proxies:
        slice_of(proxy, "mix", 1)
    ratios = {proxy.name: [] for proxy in proxies}
    for _ in range(ROUNDS):
        for proxy in proxies:
            alone, mixed = slice_of(proxy, "tiny64", SLICE), slice_of(proxy, "mix", SLICE)
            ratios[proxy.name].append(mixed["cpu"] / alone["cpu"])
    for proxy in proxies:
        print(f"  {proxy.name:9}{statistics.median(ratios[proxy.name]):>8.2f}", flush=True)


def stall(proxies, sink):
    """What is left of the traffic while one of two backends says nothing."""
    print(f"\nstall: {TITLES['stall']}")
    for proxy in proxies:
        slice_of(proxy, "paired", 1)
        before = slice_of(proxy, "paired", 3)
        urllib.request.urlopen(f"http://127.0.0.1:{sink}/stall").read()
        began = time.monotonic()
        during = slice_of(proxy, "paired", 3)
        time.sleep(max(0, 5.5 - (time.monotonic() - began)))
        after = slice_of(proxy, "paired", 1)
        print(f"  {proxy.name:9}{before['rps']:>8.0f} requests/s before,{during['rps']:>7.0f} during, p99 {during['p99'] * 1e3:.1f} ms,"
              f"{after['rps']:>7.0f} after, errors {before['wrong']} {during['wrong']} {after['wrong']}", flush=True)


def ttfb(proxies):
    """A new request on a kept connection each time, the proxies in turns."""
    print(f"\nttfb: {TITLES['ttfb']}")
    request = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
    socks = {proxy.name: socket.create_connection(("127.0.0.1", proxy.ports["up"]), 10) for proxy in proxies}
    times = {name: [] for name in socks}
    for turn in range(50 * ROUNDS):
        for name, s in socks.items():
            began = time.perf_counter()
            s.sendall(request)
            got = b""
            while b"data: 1" not in got:
                got += s.recv(4096)
            times[name].append(time.perf_counter() - began)
            while not got.endswith(b"0\r\n\r\n"):
                got += s.recv(4096)
    for name, all_times in times.items():
        all_times.sort()
        print(f"  {name:9}{statistics.median(all_times) * 1e3:>8.2f} p50{all_times[len(all_times) * 99 // 100] * 1e3:>8.2f} p99", flush=True)
        socks[name].close()


def idle(proxies):
    """Opens the connections, sends one request on each, and looks at the resident size."""
    print(f"\nidle10k: {TITLES['idle10k']}")
    # nginx makes its table of connections at the start: the growth alone would flatter it.
    for proxy in proxies:
        before = proxy.rss("main")
        alone = slice_of(proxy, "tiny64", SLICE)
        held, answered = [], 0
        request = b"GET /tiny HTTP/1.1\r\nHost: x\r\n\r\n"
        try:
            for _ in range(IDLE):
                s = socket.create_connection(("127.0.0.1", proxy.ports["main"]), 10)
                s.settimeout(10)
                held.append(s)
                s.sendall(request)
                answered += s.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError as error:
            print(f"  {proxy.name}: stopped after {len(held)}: {error}")
        time.sleep(1)
        after = proxy.rss("main")
        cpu = proxy.cpu("main")
        time.sleep(2)
        resting = (proxy.cpu("main") - cpu) / 2
        loaded = slice_of(proxy, "tiny64", SLICE)
        print(f"  {proxy.name:9}{answered:>6} answered, RSS {before / 2**20:.1f} → {after / 2**20:.1f} MiB, {(after - before) / max(len(held), 1):.0f} B a connection"
              f" ({after / max(len(held), 1):.0f} all told){resting * 100:>7.1f} % CPU idle"
              f"{alone['cpu'] * 1e6:>8.1f} → {loaded['cpu'] * 1e6:.1f}µs CPU/req", flush=True)
        for s in held:
            s.close()


# ------------------------------------------------------------------ the run

def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.makedirs(f"{folder}/www")
    # nginx gives its workers up to an account of its own; they must get at the files.
    os.chmod(folder, 0o755)
    for name, size in [("16k", 1 << 14), ("1m", 1 << 20)]:
        with open(f"{folder}/www/{name}", "wb") as file:
            file.write(os.urandom(size))
    write("upload.lua", 'wrk.method = "POST"\nwrk.body = string.rep("x", 1048576)\n')
    write("close.lua", 'wrk.headers["Connection"] = "close"\n')
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"], check=True, capture_output=True)
    write("pair.pem", open(f"{folder}/cert.pem").read() + open(f"{folder}/key.pem").read())
    rows = [name for name in ROWS if name in TITLES]

    go = None
    if shutil.which("go"):
        go = f"{folder}/proxy"
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "proxy.go")
        subprocess.run(["go", "build", "-o", go, source], check=True, env={**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off"})
    else:
        lost = [name for name in ("upload", "slow512", "mix", "mixalone", "stall", "ttfb") if name in rows]
        print(f"Go is not installed: no ReverseProxy, and without its backends no rows {', '.join(lost)}")
        rows = [name for name in rows if name not in lost]

    fast, sink, slow = free_ports(3)
    start(["nginx", "-c", write("backend.conf", BACKEND.format(folder=folder, name="backend", workers=1, port=fast, files=FILES, half=HALF)), "-e", f"{folder}/log"])
    wait_for(fast, "the fast backend")
    if go:
        start([go, "backend", f"127.0.0.1:{sink}"], {"GOMAXPROCS": "1"})
        start([go, "backend", f"127.0.0.1:{slow}"], {"GOMAXPROCS": "1", "DELAY": "1"})
        wait_for(sink, "the upload backend")
        wait_for(slow, "the slow backend")

    listeners = ["main", "up", "late", "mixed", "paired", "limited", "secure", "beside_secure"]
    to = {"main": [("a", fast)], "up": [("a", sink)], "late": [("a", slow)], "mixed": [("a", fast), ("b", slow)],
          "paired": [("a", fast), ("b", sink)], "limited": [("a", fast)], "secure": [("a", fast)], "beside_secure": []}
    proxies = []
    for name in PROXIES:
        ports = dict(zip(listeners, free_ports(len(listeners))))
        values = {"folder": folder, "name": name, "workers": 2, "fast": fast, "sink": sink, "slow": slow, "files": FILES, "half": HALF, **ports}
        if name == "nginx":
            text = NGINX.format(**values)
            processes = {"all": start(["nginx", "-c", write("nginx.conf", text), "-e", f"{folder}/log"])}
        elif name == "haproxy":
            text = HAPROXY.format(**values)
            processes = {"all": start(["haproxy", "-f", write("haproxy.cfg", text)])}
        elif name == "balancer":
            plenty, nothing = {"capacity": 10**9, "rate_per_sec": 10**9}, {"capacity": 1, "rate_per_sec": 0.000001}
            processes, shown = {}, None
            for listener in listeners:
                if not to[listener]:
                    continue
                config = balancer_config(ports[listener], to[listener], nothing if listener == "limited" else plenty,
                                         ports["beside_secure"] if listener == "secure" else None)
                shown = shown or json.dumps(config, indent=2)
                processes[listener] = start([os.environ["BIN"], "run", "--config", write(f"balancer-{listener}.json", json.dumps(config))])
            text = shown + "\n(one process a pool; `limited` has the default {capacity 1, rate_per_sec 0.000001})"
        elif name == "go" and go:
            text = "httputil.ReverseProxy, GOMAXPROCS=2, see benches/compare/proxy.go"
            processes = {listener: start([go, "proxy", f"127.0.0.1:{ports[listener]}", ",".join(f"http://127.0.0.1:{port}" for _, port in to[listener])],
                                         {"GOMAXPROCS": "2"}) for listener in listeners if to[listener]}
        else:
            continue
        print(f"---- {name}\n{text.strip()}\n")
        for listener in listeners:
            if to[listener] or name != "go":
                wait_for(ports[listener], name)
        proxies.append(Proxy(name, processes, ports))
    with open("/proc/loadavg") as file:
        print(f"load average at the start: {file.read().strip()}; {os.cpu_count()} cores; engine {ENGINE}; {ROUNDS} slices of {SLICE} s")

    for name in rows:
        # Go's ReverseProxy has no limiter.
        chosen = [proxy for proxy in proxies if proxy.name != "go" or not (name == "refuse" or name.startswith(("tls", "h2_", "storm")))]
        if name == "idle10k":
            idle(chosen)
        elif name == "beside":
            beside(chosen)
        elif name == "storm":
            storm(chosen)
        elif name == "mixalone":
            mixalone(chosen)
        elif name == "stall":
            stall(chosen, sink)
        elif name == "ttfb":
            ttfb(chosen)
        else:
            row(name, chosen)


try:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
finally:
    end_all()
