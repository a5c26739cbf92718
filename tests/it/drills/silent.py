"""Silent connections from six addresses of one IPv6 prefix, and clients that want to be served beside them.

Usage: silent.py ADDRESS PORT COUNT. Prints one JSON line.
"""

import json
import select
import socket
import sys
import time

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def connect(source):
    one = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    one.settimeout(10)
    one.bind((source, 0))
    one.connect((address, port))
    return one


def get(source, path):
    """The status (0: no answer) and how long it took."""
    began = time.monotonic()
    try:
        one = connect(source)
        one.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        answer = b""
        while piece := one.recv(4096):
            answer += piece
        status = int(answer.split(b" ")[1]) if answer else 0
    except OSError:
        status = 0
    return [status, round(time.monotonic() - began, 3)]


def held(ones):
    """How many are still open."""
    watch = select.poll()
    for one in ones:
        watch.register(one, select.POLLIN)
    return len(ones) - len(watch.poll(0))


silent = [connect(f"fd00:1::{number % 6 + 1}") for number in range(count)]
# What is refused or ended is so at once; the process is asked something behind it, to be sure.
get("fd00:3::1", "/-/livez")
print(
    json.dumps(
        {
            "held": held(silent),
            "other": get("fd00:2::1", "/"),
            "same": get("fd00:1::7", "/"),
            "livez": get("fd00:2::2", "/-/livez"),
            "left": held(silent),
        }
    )
)
