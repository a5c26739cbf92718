"""Backends with a fixed number of workers, and a line inside. `backend.py PORT…`

`GET /?ms=50` takes a worker for 50 ms in the mean (exponential), `&hold=2` is first held for two seconds without one.
`GET /workers?count=4` sets how many there are, on every port. What has begun is finished, and what waits is begun, even
when who asked has left: so are most servers.
"""

import asyncio
import collections
import random
import sys
import urllib.parse

from http1 import Messages

WORKERS = 4
SERVERS = []


class Server:
    def __init__(self, port):
        self.port, self.workers, self.busy, self.line = port, WORKERS, 0, collections.deque()
        self.random = random.Random(port % 7)

    def add(self, seconds, done):
        self.line.append((seconds, done))
        self.fill()

    def fill(self):
        while self.line and self.busy < self.workers:
            seconds, done = self.line.popleft()
            self.busy += 1
            asyncio.get_running_loop().call_later(seconds, self.finish, done)

    def finish(self, done):
        self.busy -= 1
        done()
        self.fill()


class Connection(Messages):
    def __init__(self, server):
        super().__init__()
        self.server = server

    def message(self, head):
        target = urllib.parse.urlsplit(head.split(b" ", 2)[1].decode())
        asked = {key: float(value) for key, value in urllib.parse.parse_qsl(target.query)}
        if target.path == "/workers":
            for server in SERVERS:
                server.workers = int(asked["count"])
                server.fill()
            return self.answer()
        if "ms" not in asked:
            return self.answer()
        seconds = self.server.random.expovariate(1000 / asked["ms"])
        if "hold" in asked:
            asyncio.get_running_loop().call_later(asked["hold"], self.server.add, seconds, self.answer)
        else:
            self.server.add(seconds, self.answer)

    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def main():
    loop = asyncio.get_running_loop()
    for port in sys.argv[1:]:
        server = Server(int(port))
        SERVERS.append(server)
        await loop.create_server(lambda server=server: Connection(server), "127.0.0.1", server.port, backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
