"""A backend that fails in the way that it is told, one at a time. Arguments: its port, the port of its control.

The control takes a line with the name of a way and answers with how often it failed so so far, and how many answers it has
cut inside their body in all."""

import asyncio
import random
import socket
import struct
import sys

BODY = b"x" * 4096
GARBAGE = [
    b"\0\xff garbage\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    b"HTTP/1.1 two hundred\r\n\r\n",
]


class State:
    way = "well"
    failed = 0
    cuts = 0
    answered = 0


def ok(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def reset(writer):
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
    if length:
        await reader.readexactly(length)
    return head


async def answer(writer):
    """Whether the connection goes on."""
    way = State.way
    State.answered += 1
    if way == "well":
        writer.write(ok(BODY))
        return True
    if way == "500" and State.answered // 20 % 2:
        writer.write(ok(BODY))
        return True
    State.failed += 1
    if way == "500":
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        return True
    if way == "garbage":
        writer.write(random.choice(GARBAGE))
        return False
    if way == "reset":
        reset(writer)
        return False
    if way == "cut":
        State.cuts += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        await writer.drain()
        # So that what was sent is read before the reset overtakes it.
        await asyncio.sleep(0.02)
        reset(writer)
        return False
    if way == "hang":
        while State.way == "hang":
            await asyncio.sleep(0.1)
        return False
    writer.write(ok(BODY))
    if way == "close" and random.random() < 0.3:
        await asyncio.sleep(random.choice([0, 0, 0.001, 0.01]))
        return False
    return True


async def serve(reader, writer):
    try:
        while True:
            head = await read_request(reader)
            if b" /health " in head.split(b"\r\n")[0]:
                writer.write(ok(b"ok"))
            elif not await answer(writer):
                break
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        pass
    finally:
        writer.close()


async def control(reader, writer):
    while line := await reader.readline():
        State.way = line.decode().strip()
        writer.write(b"%d %d\n" % (State.failed, State.cuts))
        State.failed = 0
        await writer.drain()
    writer.close()


async def main():
    port, control_port = int(sys.argv[1]), int(sys.argv[2])
    await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await asyncio.start_server(control, "127.0.0.1", control_port)
    await asyncio.Event().wait()


asyncio.run(main())
