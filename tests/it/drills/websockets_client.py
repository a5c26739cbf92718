"""Opens N connections at once, says so, waits until the file GO exists, and then uses each of them."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL, COUNT, GO = sys.argv[1], int(sys.argv[2]), sys.argv[3]
CODES = [1000, 1001, 1003, 1011, 3000, 4999]


async def use(number, connection):
    text = f"text {number} \N{SNOWMAN}"
    await connection.send(text)
    assert await connection.recv() == text
    # Some are longer than every buffer on the way.
    binary = bytes([number % 256]) * (1 << 20 if number % 100 == 0 else 1000)
    await connection.send(binary)
    assert await connection.recv() == binary
    # Two frames of one message.
    await connection.send(["frag", "mented"])
    assert await connection.recv() == "fragmented"
    # A pong of the server's own with our payload.
    await (await connection.ping(f"ping {number}"))
    code = CODES[number % len(CODES)]
    if number % 2 == 0:
        await connection.send(f"close {code} because")
        try:
            await connection.recv()
            raise AssertionError("still open")
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, closed
            assert (closed.rcvd.code, closed.rcvd.reason) == (code, "because"), closed
    else:
        await connection.close(code, "because")
        # The server's echo of our close frame.
        assert connection.close_code == code, connection.close_code


async def main():
    options = {"max_size": None, "ping_interval": None, "open_timeout": 60, "proxy": None}
    connections = await asyncio.gather(*(connect(URL, **options) for _ in range(COUNT)))
    print(f"open {len(connections)}", flush=True)
    while not os.path.exists(GO):
        await asyncio.sleep(0.02)
    await asyncio.gather(*(use(number, connection) for number, connection in enumerate(connections)))
    print(f"used {len(connections)}", flush=True)


asyncio.run(main())
