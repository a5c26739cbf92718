"""Clients that ask at random times whatever becomes of what they asked before. `client.py < plan.json > told.json`

The plan: `{"port", "begin", "count_from", "seconds", "seed", "sources": [{"group", "client", "rate", "target", "new"}]}`; `begin` on
the monotonic clock; `new`: a name of its own for each request. Told, by group: how many were asked from `count_from` to
the end, how many of those were answered with 200 within two seconds (`good`), later (`late`), with what else (by
status), or not at all: who is not answered within ten seconds leaves.
"""

import asyncio
import collections
import heapq
import json
import random
import sys
import time

from http1 import Messages

GOOD, PATIENCE = 2.0, 10.0


class Connection(Messages):
    """To the proxy; free between answers."""

    def __init__(self, world):
        super().__init__()
        self.world, self.request = world, None

    def message(self, head):
        request, self.request = self.request, None
        if b"\r\nconnection: close" in head.lower():
            self.transport.close()
        else:
            self.world.free.append(self)
        self.world.told(request, head.split(b" ", 2)[1].decode())

    def connection_lost(self, _):
        if self in self.world.free:
            self.world.free.remove(self)
        if self.request:
            self.world.told(self.request, "broken")

    def leave(self, request):
        if self.request is request:
            self.request = None
            self.transport.abort()
            self.world.told(request, "left")


class World:
    def __init__(self, plan):
        self.plan, self.random = plan, random.Random(plan["seed"])
        self.free, self.groups, self.open = [], collections.defaultdict(collections.Counter), 0
        self.latencies = collections.defaultdict(list)
        self.made_up = 0

    async def run(self):
        begin = self.plan["begin"]
        end = begin + self.plan["count_from"] + self.plan["seconds"]
        due = [(begin + self.random.expovariate(source["rate"]), number) for number, source in enumerate(self.plan["sources"])]
        heapq.heapify(due)
        while due and due[0][0] < end:
            at, number = due[0]
            if (wait := at - time.monotonic()) > 0.001:
                await asyncio.sleep(wait)
            source = self.plan["sources"][number]
            heapq.heapreplace(due, (at + self.random.expovariate(source["rate"]), number))
            asyncio.ensure_future(self.ask(source, at))
        while self.open and time.monotonic() < end + PATIENCE + 5:
            await asyncio.sleep(0.05)

    async def ask(self, source, at):
        client = source["client"]
        if source.get("new"):
            self.made_up += 1
            client = f"10.{self.made_up >> 16 & 255}.{self.made_up >> 8 & 255}.{self.made_up & 255}"
        is_counted = at >= self.plan["begin"] + self.plan["count_from"]
        request = (source["group"], time.monotonic(), is_counted)
        self.open += 1
        if is_counted:
            self.groups[source["group"]]["asked"] += 1
        # The one that was used last is the least likely to be closed meanwhile.
        while self.free and (connection := self.free.pop()):
            if not connection.transport.is_closing():
                break
        else:
            try:
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.plan["port"])
            except OSError:
                return self.told(request, "not connected")
        connection.request = request
        connection.transport.write(
            f"GET {source['target']} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
        asyncio.get_running_loop().call_later(PATIENCE, connection.leave, request)

    def told(self, request, status):
        group, since, is_counted = request
        self.open -= 1
        if is_counted:
            took = time.monotonic() - since
            if status == "200":
                self.latencies[group].append(took)
                status = "good" if took <= GOOD else "late"
            self.groups[group][status] += 1


world = World(json.load(sys.stdin))
asyncio.run(world.run())
for group, latencies in world.latencies.items():
    latencies.sort()
    world.groups[group]["p50_ms"] = round(latencies[len(latencies) // 2] * 1000)
    world.groups[group]["p99_ms"] = round(latencies[len(latencies) * 99 // 100] * 1000)
json.dump(world.groups, sys.stdout)
