"""A backend with so many slots, exponential service times, and a queue. Arguments: port, name, mean in ms, slots.

`GET /-/mean/MS` changes the mean, and `GET /-/served` says how many requests came."""

import asyncio
import collections
import random
import sys

NAME = sys.argv[2].encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(NAME), NAME)


class Bench:
    mean_s = float(sys.argv[3]) / 1000
    free = int(sys.argv[4])
    queue = collections.deque()
    came = 0


class Peer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.input = b""

    def data_received(self, data):
        self.input += data
        while (end := self.input.find(b"\r\n\r\n")) >= 0:
            target = self.input[:self.input.find(b"\r\n")].split(b" ")[1]
            self.input = self.input[end + 4:]
            if target.startswith(b"/-/mean/"):
                Bench.mean_s = float(target[8:]) / 1000
                self.transport.write(ANSWER)
            elif target == b"/-/served":
                text = b"%d" % Bench.came
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
            else:
                Bench.came += 1
                Bench.queue.append(self)
        work()


def work():
    while Bench.free and Bench.queue:
        Bench.free -= 1
        peer = Bench.queue.popleft()
        asyncio.get_running_loop().call_later(random.expovariate(1 / Bench.mean_s), done, peer)


def done(peer):
    Bench.free += 1
    if not peer.transport.is_closing():
        peer.transport.write(ANSWER)
    work()


async def main():
    server = await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", int(sys.argv[1]), backlog=2048)
    await server.serve_forever()


asyncio.run(main())
