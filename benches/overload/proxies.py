"""What the drills put in front of each other: backends, Balancer, HAProxy and nginx, each a context that ends itself."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from local import Folder, free_ports  # noqa: E402: benches/local.py

HERE = os.path.dirname(os.path.abspath(__file__))
OWN = Folder("overload")
FOLDER, write = OWN.path, OWN.write
RUNNING = []

# Where nothing refuses it a greedy client holds twelve thousand connections; those that wait have one descriptor each.
CONNECTIONS, FILES = 15_000, 19_500
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if hard < FILES:
    sys.exit(f"needs {FILES} open files, {hard} are allowed (ulimit -Hn)")
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ask(port, path, body=None, method=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method,
                                     data=json.dumps(body).encode() if body is not None else None)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


class Process:
    """One process that listens on ports; ended with its block."""

    def __init__(self, args, ports):
        self.port = ports[0]
        with open(os.path.join(FOLDER, "log"), "ab") as log:
            self.process = subprocess.Popen(args, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=FOLDER,
                                            start_new_session=True)
        RUNNING.append(self)
        for port in ports:
            OWN.wait_for(port, args[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        RUNNING.remove(self)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                # Clients that will never be answered: nobody waits for those.
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Backends(Process):
    """Three, with so many workers each."""

    def __init__(self, workers):
        self.ports = free_ports(3)
        super().__init__([sys.executable, os.path.join(HERE, "backend.py"), *map(str, self.ports)], self.ports)
        self.workers(workers)

    def workers(self, count):
        ask(self.ports[0], f"/workers?count={count}")


class Balancer(Process):
    def __init__(self, args, port, admin):
        super().__init__(args, [port, admin])
        self.admin = admin

    def bounds(self):
        """Of each backend, as they are now."""
        found = re.findall(r"^balancer_backend_limit\{[^}]*\} (\S+)", ask(self.admin, "/metrics"), re.M)
        return [float(bound) for bound in found]


def start_balancer(backends, bound, order, limits=None):
    port, admin = free_ports(2)
    config = {
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "frontend": {"max_connections": CONNECTIONS, "max_connections_per_ip": CONNECTIONS},
        "backends": [{"name": name, "url": f"http://127.0.0.1:{to}", "max_in_flight": bound}
                     for name, to in zip("abc", backends.ports)],
        "balancing": {"queue_order": order},
        "health_check": None,
        # The clients of a drill are told apart by this field.
        "rate_limit": {"trusted_proxies": ["127.0.0.0/8"]},
        "database": {"url": f"sqlite:{FOLDER}/balancer-{port}.db"},
        "log": {"access": False, "level": "warn"},
    }
    proxy = Balancer([os.environ["BIN"], "--config", write(f"balancer-{port}.json", json.dumps(config))], port, admin)
    for limit in limits or []:
        plenty = [{"name": "default", "amount": 1_000_000, "per": "1s"}]
        ask(admin, "/v1/limits", {"buckets": plenty, **limit}, "POST")
    return proxy


HAPROXY = """global
  nbthread 2
  no strict-limits
  maxconn {connections}
defaults
  mode http
  maxconn {connections}
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout queue 5s
  option abortonclose
frontend main
  bind 127.0.0.1:{port}
  default_backend all
backend all
  balance leastconn
{servers}
"""


def start_haproxy(backends, bound):
    [port] = free_ports(1)
    servers = "\n".join(f"  server s{to} 127.0.0.1:{to} maxconn {bound}" for to in backends.ports)
    text = HAPROXY.format(port=port, servers=servers, connections=CONNECTIONS, files=FILES)
    return Process(["haproxy", "-db", "-f", write(f"haproxy-{port}.cfg", text)], [port])


NGINX = """daemon off; pid {folder}/nginx-{port}.pid; error_log {folder}/nginx-{port}.err crit;
worker_processes 2; worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2; fastcgi_temp_path {folder}/n3;
  uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
  proxy_http_version 1.1; proxy_set_header Connection "";
  upstream all {{ zone all 256k; least_conn; {servers} keepalive 16; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://all; }} }}
}}
"""


def start_nginx(backends, bound):
    [port] = free_ports(1)
    servers = " ".join(f"server 127.0.0.1:{to} max_conns={bound} max_fails=0;" for to in backends.ports)
    text = NGINX.format(folder=FOLDER, port=port, servers=servers, connections=CONNECTIONS, files=FILES)
    return Process(["nginx", "-c", write(f"nginx-{port}.conf", text), "-p", FOLDER], [port])


def end_all():
    for process in reversed(RUNNING[:]):
        process.__exit__()
    shutil.rmtree(FOLDER, ignore_errors=True)
