"""httpx with HTTP/2 against an echo behind the balancer: BASE_URL and the file with its certificate are the arguments."""

import asyncio
import hashlib
import ssl
import sys

import httpx

base, certificate = sys.argv[1:]
context = ssl.create_default_context(cafile=certificate)
PIECE = bytes(range(256)) * 256
PIECES = 80


def http2(answer):
    assert answer.http_version == "HTTP/2", answer.http_version
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return answer


def one_after_the_other():
    with httpx.Client(http2=True, verify=context, base_url=base) as client:
        for n in range(20):
            assert http2(client.post(f"/{n}", content=b"x" * n, headers={"x-n": str(n)})).content == b"x" * n
        assert http2(client.get("/empty")).content == b""
        assert http2(client.head("/empty")).content == b""


def streams():
    def pieces():
        for _ in range(PIECES):
            yield PIECE

    with httpx.Client(http2=True, verify=context, base_url=base) as client:
        digest, length = hashlib.sha256(), 0
        # Its length is not known beforehand, on neither way.
        with client.stream("POST", "/stream", content=pieces()) as answer:
            http2(answer)
            for piece in answer.iter_bytes():
                digest.update(piece)
                length += len(piece)
        assert length == PIECES * len(PIECE), length
        assert digest.digest() == hashlib.sha256(PIECE * PIECES).digest()
        # Left in the middle; the connection goes on.
        with client.stream("POST", "/left", content=PIECE * PIECES) as answer:
            next(answer.iter_bytes())
        assert http2(client.post("/after", content=b"y")).content == b"y"


async def many_at_once():
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(http2=True, verify=context, base_url=base, limits=limits, timeout=60) as client:
        async def one(n):
            body = str(n).encode() * 1000
            assert http2(await client.post(f"/{n}", content=body)).content == body

        await asyncio.gather(*(one(n) for n in range(300)))


one_after_the_other()
streams()
asyncio.run(many_at_once())
print("all of it is fine")
