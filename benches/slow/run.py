"""Thousands of slow clients beside normal ones, in front of nginx and of Balancer: see ../slow.sh."""
import asyncio, json, os, re, resource, shutil, signal, socket, statistics, subprocess, sys, time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from local import Folder, free_ports  # noqa: E402: benches/local.py

SLOW = int(os.environ.get("SLOW", "4000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SLICE = int(os.environ.get("SLICE", "10"))
TICK = 0.25
own = Folder("slow")
folder, write = own.path, own.write
started = []


def start(args):
    with open(f"{folder}/log", "a") as log:
        started.append(subprocess.Popen(args, stdout=log, stderr=log))
    return started[-1]


# The backend reads whole uploads before it answers, as an application does.
BACKEND = """worker_processes 1; daemon off; pid {folder}/backend.pid; error_log {folder}/log; worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{ access_log off; client_max_body_size 0; client_body_timeout 600s; send_timeout 600s; keepalive_requests 100000000;
  client_body_temp_path {folder}/b1;
  server {{ listen 127.0.0.1:{echo} backlog=4096; location / {{ return 200 "ok"; }} }}
  server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/www;
    location /sink {{ proxy_pass http://127.0.0.1:{echo}; }} }} }}
"""
NGINX = """worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/log; worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{ access_log off; client_max_body_size 0; keepalive_requests 100000000; proxy_request_buffering off; client_body_temp_path {folder}/b2;
  client_header_timeout 600s; client_body_timeout 600s; send_timeout 600s; proxy_read_timeout 600s; proxy_send_timeout 600s;
  upstream pool {{ server 127.0.0.1:{backend}; keepalive 128; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""


def balancer_config(port, backend):
    return {
        "listen": f"127.0.0.1:{port}", "backends": [{"name": "a", "url": f"http://127.0.0.1:{backend}"}],
        "health_check": None, "database": {"url": f"sqlite:{folder}/balancer.db"}, "log": {"access": False, "level": "error"},
        "upstream": {"response_timeout": "600s", "read_timeout": "600s"},
        "frontend": {"max_connections_per_ip": 20000, "head_timeout": "600s", "body_timeout": "600s", "write_timeout": "600s",
                     "min_bytes_per_sec": 0, "slow_grace": "600s"},
    }


async def slow_client(port, kind, stop):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    sock = writer.get_extra_info("socket")
    if kind in ("answer64k", "answer4m"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        size = "64k" if kind == "answer64k" else "4m"
        writer.write(f"GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    elif kind == "head":
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    else:
        length = (64 << 10) if kind == "body64k" else (4 << 20)
        writer.write(f"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nbegin".encode())
    try:
        while not stop.is_set():
            await asyncio.sleep(TICK * 8)
            if kind.startswith("answer"):
                if not await reader.read(8):
                    return 1
            else:
                writer.write(b"x")
    except OSError:
        return 1
    finally:
        writer.transport.abort()
    return 0


async def crowd(port, ready, seconds):
    stop = asyncio.Event()
    kinds = ["head", "body64k", "body4m", "answer64k", "answer4m"]
    tasks = []
    for number in range(SLOW):
        tasks.append(asyncio.create_task(slow_client(port, kinds[number % 5], stop)))
        if number % 100 == 99:
            await asyncio.sleep(0.02)
    await asyncio.sleep(3)
    ready()
    await asyncio.sleep(seconds)
    stop.set()
    return sum(1 for one in await asyncio.gather(*tasks, return_exceptions=True) if one != 0)


def normal(port):
    out = subprocess.run(["wrk", "-t1", "-c8", f"-d{SLICE}s", "--latency", f"http://127.0.0.1:{port}/small"],
                         capture_output=True, text=True, check=True).stdout
    number = lambda text: float(re.match(r"[\d.]+", text).group()) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[re.search(r"[a-z]+", text).group()]
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    lost = (sum(map(int, errors.groups())) if errors else 0) + (int(bad.group(1)) if bad else 0)
    p = lambda which: number(re.search(rf"^\s+{which}%\s+(\S+)", out, re.M).group(1))
    return {"p50": p(50), "p99": p(99), "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), "lost": lost}


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.makedirs(f"{folder}/www")
    os.chmod(folder, 0o755)
    for name, size in [("small", 2), ("64k", 64 << 10), ("4m", 4 << 20)]:
        with open(f"{folder}/www/{name}", "wb") as file:
            file.write(b"x" * size)
    backend, echo, nginx, balancer = free_ports(4)
    start(["nginx", "-c", write("backend.conf", BACKEND.format(folder=folder, port=backend, echo=echo)), "-e", f"{folder}/log"])
    start(["nginx", "-c", write("nginx.conf", NGINX.format(folder=folder, port=nginx, backend=backend)), "-e", f"{folder}/log"])
    start([os.environ["BIN"], "run", "--config", write("balancer.json", json.dumps(balancer_config(balancer, backend)))])
    proxies = {"nginx": nginx, "balancer": balancer}
    for what, port in {"backend": backend, "echo": echo, **proxies}.items():
        own.wait_for(port, what)
    results = {name: {"alone": [], "beside": [], "ended": []} for name in proxies}
    for turn in range(ROUNDS):
        for name in list(proxies) if turn % 2 == 0 else list(proxies)[::-1]:
            results[name]["alone"].append(normal(proxies[name]))
            child_reads, child_writes = os.pipe()
            child = os.fork()
            if child == 0:
                ended = asyncio.run(crowd(proxies[name], lambda: os.write(child_writes, b"r"), SLICE + 2))
                os.write(child_writes, json.dumps(ended).encode())
                os._exit(0)
            os.read(child_reads, 1)
            results[name]["beside"].append(normal(proxies[name]))
            results[name]["ended"].append(int(os.read(child_reads, 64) or b"-1"))
            os.waitpid(child, 0)
            time.sleep(2)
    print(f"{SLOW} slow clients (heads, bodies of 64 KiB and 4 MiB, readers of 64 KiB and 4 MiB), 8 normal ones; {ROUNDS} slices of {SLICE} s; medians")
    print(f"{'':10}{'p99 alone':>12}{'p50 beside':>12}{'p99 beside':>12}{'req/s beside':>14}{'lost':>6}{'slow ones ended':>17}")
    for name, result in results.items():
        median = lambda when, key: statistics.median(one[key] for one in result[when])
        print(f"{name:10}{median('alone', 'p99'):>10.2f}ms{median('beside', 'p50'):>10.2f}ms{median('beside', 'p99'):>10.2f}ms"
              f"{median('beside', 'rps'):>14.0f}{sum(one['lost'] for one in result['beside']):>6}{sum(result['ended']):>17}")


try:
    main()
finally:
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)
