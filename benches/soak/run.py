"""Runs the soak that benches/soak.sh describes. Standard library only."""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from local import Folder, free_ports  # noqa: E402: benches/local.py

MINUTES = float(sys.argv[1])
CLIENTS = int(os.environ.get("CLIENTS", "64"))
PAUSE = float(os.environ.get("PAUSE", "0.01"))
SEED = int(os.environ.get("SEED", str(random.randrange(1_000_000))))
ENGINE = os.environ.get("ENGINE", "auto")
BIN, BACKEND = os.environ["BIN"], os.environ["BACKEND"]
HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 20  # seconds; a request without an answer by then is lost
LINE_EVERY = 10  # seconds
REQUEST_BUFFER = 65536  # frontend.request_buffer_bytes: what is larger is streamed, and can't be had again

folder = Folder("soak").path
started = []


def start(args, name):
    log = open(os.path.join(folder, name + ".log"), "ab")
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    started.append(process)
    return process


def end_all():
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def listening(port, what):
    for _ in range(400):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    sys.exit(f"{what} does not listen on {port}; see {folder}")


def reset(writer):
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Tally:
    requests = 0
    lost = 0
    cut = 0  # answers cut inside their body, as clients saw them
    cuts = 0  # as the backend made them
    killed = 0  # of those that clients saw: because their backend was killed or stopped
    unsafe = 0  # POSTs and streamed bodies that failed
    causes = {}

    @classmethod
    def count(cls, what, method, size, fault):
        cls.requests += 1
        if what == "whole 200":
            return
        if what == "cut" and any(f"a backend{how}" in fault for how in (": cut", " killed", " stopped")):
            cls.cut += 1
            cls.killed += "a backend: cut" not in fault
        elif what != "cut" and (method == "POST" or size > REQUEST_BUFFER):
            cls.unsafe += 1
        else:
            cls.lost += 1
            cause = f"{method}: {what} during {fault}"
            cls.causes[cause] = cls.causes.get(cause, 0) + 1


async def read_answer(reader):
    """`whole 200`, `cut` or what else came; and whether the connection goes on."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return ("cut head" if error.partial else "closed"), False
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0].split(" ")[1]
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    try:
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline() or b"!", 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            await reader.readexactly(int(fields.get("content-length", "0")))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return "cut", False
    keeps = fields.get("connection", "").lower() != "close"
    return ("whole 200" if status == "200" else f"status {status}"), keeps


async def ask(reader, writer, method, size):
    body = b"y" * size
    framing = f"Content-Length: {size}\r\n" if size else ""
    writer.write(f"{method} / HTTP/1.1\r\nHost: soak\r\n{framing}\r\n".encode() + body)
    await writer.drain()
    return await read_answer(reader)


class Soak:
    def __init__(self):
        self.port, self.a, self.a_control, self.b, self.c = free_ports(5)
        self.random = random.Random(SEED)
        self.fault = "none"
        self.stopping = False
        self.samples = []

    def configure(self):
        backends = [("a", self.a), ("b", self.b), ("c", self.c)]
        config = {
            "listen": f"127.0.0.1:{self.port}",
            "frontend": {"engine": ENGINE, "max_connections_per_ip": 20000},
            "backends": [{"name": name, "url": f"http://127.0.0.1:{port}", "max_in_flight": 24}
                         for name, port in backends],
            "balancing": {"queue_timeout": "10s"},
            "upstream": {"response_timeout": "1s", "retries": 2,
                         "retry_on": ["connect", "reset", "timeout", "500-599"]},
            "outlier": {"base_time": "500ms", "statuses": "500-599"},
            "health_check": {"path": "/health", "interval": "500ms", "rise": 1, "fall": 2},
            "rate_limit": {"default": {"capacity": 1000000, "rate_per_sec": 1000000}},
            "cache": {"ttl": "2s"},
            # Each connection of the pool has a page cache of up to 2 MB: a database that grew would look like memory that does.
            "database": {"url": "sqlite:soak.db", "pool_size": 2},
            "audit": {"max_rows": 1000},
            "shutdown_timeout": "10s",
            "log": {"level": "warn", "access": "file:access.log"},
        }
        path = os.path.join(folder, "config.json")
        with open(path, "w") as file:
            json.dump(config, file)
        return path

    def start_b(self):
        self.process_b = start([BACKEND, "--port", str(self.b)], "b")

    async def connect(self):
        address = f"127.0.{self.random.randrange(1, 9)}.{self.random.randrange(1, 32)}"
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def client(self):
        while not self.stopping:
            try:
                reader, writer = await self.connect()
            except OSError as error:
                Tally.count(f"no connection ({error})", "GET", 0, self.fault)
                await asyncio.sleep(0.1)
                continue
            for _ in range(self.random.randrange(1, 200)):
                method, size = ("GET", 0) if self.random.random() < 0.9 else (
                    self.random.choice(["POST", "PUT"]), self.random.choice([10, 5_000, 100_000]))
                try:
                    what, keeps = await asyncio.wait_for(ask(reader, writer, method, size), PATIENCE)
                except (asyncio.TimeoutError, TimeoutError):
                    what, keeps = f"nothing for {PATIENCE} s", False
                except OSError as error:
                    what, keeps = f"broken ({error})", False
                Tally.count(what, method, size, self.fault)
                if not keeps or self.stopping:
                    break
                await asyncio.sleep(PAUSE)
            writer.close()

    async def api(self, method, path, body=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await reader.read()
        writer.close()

    async def operator(self):
        """Limits come and go all the time."""
        number = 0
        while not self.stopping:
            number = (number + 1) % 500
            body = json.dumps({"client_id": f"10.0.{number // 250}.{number % 250}", "capacity": 5, "rate_per_sec": 1})
            try:
                await self.api("POST", "/limits/create", body.encode())
                await self.api("DELETE", f"/limits/delete?client_id=10.0.{number // 250}.{number % 250}")
            except OSError:
                pass
            await asyncio.sleep(0.2)

    # Faults. Each returns how often it is known to have happened; 0 is a failure of the soak itself.

    async def way_of_a(self, way, seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.a_control)

        async def tell(line):
            writer.write(line.encode() + b"\n")
            failed, cuts = (await reader.readline()).split()
            Tally.cuts = int(cuts)
            return int(failed)

        await tell(way)
        await asyncio.sleep(seconds)
        failed = await tell(way)
        # It may be ejected from before, for longer with each relapse, up to five minutes: until it is asked again.
        for _ in range(660):
            if failed:
                break
            await asyncio.sleep(0.5)
            failed = await tell(way)
        failed += await tell("well")
        writer.close()
        return failed

    async def kill_b(self):
        self.process_b.kill()
        self.process_b.wait()
        await asyncio.sleep(2)
        self.start_b()
        await listening(self.b, "test_backend")
        return 1

    async def stop_b(self):
        self.process_b.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        with open(f"/proc/{self.process_b.pid}/stat") as file:
            stopped = file.read().rsplit(") ", 1)[1][0] == "T"
        await asyncio.sleep(3)
        self.process_b.send_signal(signal.SIGCONT)
        return int(stopped)

    async def lock_database(self):
        database = sqlite3.connect(os.path.join(folder, "soak.db"), isolation_level=None, timeout=5)
        database.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(3)
        database.execute("ROLLBACK")
        database.close()
        return 1

    async def reload(self):
        for _ in range(5):
            self.balancer.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.3)
        return 5

    async def clients_reset(self):
        for _ in range(100):
            _, writer = await self.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(self.random.random() * 0.02)
            reset(writer)
        return 100

    async def slow_clients(self):
        async def slow():
            _, writer = await self.connect()
            for byte in b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
            writer.close()
        await asyncio.gather(*(slow() for _ in range(50)))
        return 50

    async def silent_crowd(self):
        crowd = [await self.connect() for _ in range(300)]
        await asyncio.sleep(2)
        for _, writer in crowd:
            writer.close()
        return 300

    def faults(self):
        ways = {f"a backend: {way}": (lambda way=way: self.way_of_a(way, 3))
                for way in ("garbage", "reset", "cut", "hang", "close", "500")}
        return {**ways, "a backend killed": self.kill_b, "a backend stopped": self.stop_b,
                "the database locked": self.lock_database, "reloads": self.reload,
                "clients reset": self.clients_reset, "slow clients": self.slow_clients,
                "a silent crowd": self.silent_crowd}

    async def drills(self, until):
        faults = self.faults()
        happened = dict.fromkeys(faults, 0)
        while time.monotonic() < until:
            order = list(faults)
            self.random.shuffle(order)
            for name in order:
                if time.monotonic() >= until:
                    break
                self.fault = name
                count = await faults[name]()
                if not count:
                    raise RuntimeError(f"{name} did not happen")
                happened[name] += count
                self.fault = f"none, after {name}"
                await asyncio.sleep(1.5)
        return happened

    def sample(self, began):
        pid = self.balancer.pid
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":", 1) for line in file if ":" in line)
        rss = int(status["VmRSS"].split()[0])
        files = len(os.listdir(f"/proc/{pid}/fd"))
        row = (time.monotonic() - began, Tally.requests, Tally.lost, rss, files, int(status["Threads"]))
        self.samples.append(row)
        return row

    async def watch(self, began):
        next_line, before = 0, (0, 0)
        print(f"{'s':>6} {'requests':>9} {'/s':>6} {'lost':>5} {'cut':>5} {'unsafe':>6} {'RSS KiB':>8} {'fds':>5} {'threads':>7}  fault",
              flush=True)
        while not self.stopping:
            if self.balancer.poll() is not None:
                raise RuntimeError(f"the balancer ended with {self.balancer.returncode}")
            at, requests, lost, rss, files, threads = self.sample(began)
            if at >= next_line:
                rate = (requests - before[1]) / max(at - before[0], 1e-9)
                print(f"{at:6.0f} {requests:9} {rate:6.0f} {lost:5} {Tally.cut:5} {Tally.unsafe:6} {rss:8} {files:5} {threads:7}  {self.fault}",
                      flush=True)
                next_line, before = at + LINE_EVERY, (at, requests)
            await asyncio.sleep(1)

    async def run(self):
        start([sys.executable, os.path.join(HERE, "backend.py"), str(self.a), str(self.a_control)], "a")
        self.start_b()
        start([BACKEND, "--port", str(self.c)], "c")
        for port, what in ((self.a, "backend.py"), (self.b, "test_backend"), (self.c, "test_backend")):
            await listening(port, what)
        self.balancer = start([BIN, "run", "--config", self.configure()], "balancer")
        await listening(self.port, "the balancer")
        began = time.monotonic()
        tasks = [asyncio.create_task(self.client()) for _ in range(CLIENTS)]
        tasks += [asyncio.create_task(self.operator()), asyncio.create_task(self.watch(began))]
        drills = asyncio.create_task(self.drills(began + MINUTES * 60))
        done, _ = await asyncio.wait([drills, tasks[-1]], return_when=asyncio.FIRST_COMPLETED)
        self.stopping = True
        for task in done:
            task.result()
        await asyncio.gather(*tasks)
        self.balancer.send_signal(signal.SIGTERM)
        ended = await asyncio.to_thread(self.balancer.wait, 20)
        return drills.result(), ended


def thirds(samples, column):
    """Medians of the first and the last third behind the warm-up, a third of the time: each worker touches its buffers when
    it first runs, and only the rarest crowds need the last of them."""
    warm = samples[-1][0] / 3
    values = [row[column] for row in samples if row[0] >= warm]
    third = max(len(values) // 3, 1)
    return statistics.median(values[:third]), statistics.median(values[-third:])


def verdict(soak, happened, ended):
    if path := os.environ.get("TABLE"):
        with open(path, "w") as file:
            print("seconds", "requests", "lost", "rss_kib", "fds", "threads", sep="\t", file=file)
            for row in soak.samples:
                print(*row, sep="\t", file=file)
    faults = []
    print("\nhappened: " + ", ".join(f"{name} {count}" for name, count in sorted(happened.items())))
    print(f"requests {Tally.requests}, lost {Tally.lost}, cut by their backend {Tally.cuts} and seen as cut {Tally.cut}, "
          f"of them {Tally.killed} since it was killed or stopped, "
          f"failed and not to be repeated {Tally.unsafe}")
    for cause, count in sorted(Tally.causes.items(), key=lambda item: -item[1]):
        print(f"  lost: {count} × {cause}")
    if Tally.lost:
        faults.append("requests were lost")
    if Tally.cut > Tally.cuts + Tally.killed:
        faults.append("more answers were cut than their backend cut")
    for name, column, slack in (("resident size", 3, 0), ("descriptors", 4, 8)):
        first, last = thirds(soak.samples, column)
        print(f"{name}: first third {first:.0f}, last third {last:.0f} ({(last / first - 1) * 100:+.1f} %)")
        if last > first * 1.05 + slack:
            faults.append(f"{name} grew")
    if ended != 0:
        faults.append(f"the balancer ended with {ended}")
    print("FAILED: " + "; ".join(faults) if faults else "passed")
    return not faults


def main():
    print(f"soak of {MINUTES:g} minutes, {CLIENTS} clients, seed {SEED}, {BIN}")
    soak = Soak()
    passed = False
    try:
        happened, ended = asyncio.run(soak.run())
        passed = verdict(soak, happened, ended)
    finally:
        end_all()
        if passed:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs: {folder}")
    sys.exit(0 if passed else 1)


main()
