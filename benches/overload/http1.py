"""Just enough of HTTP/1.1 for both ends of a drill: messages with a Content-Length, one after the other."""

import asyncio


class Messages(asyncio.Protocol):
    """Calls `message(head)` for each whole message."""

    def __init__(self):
        self.transport, self.buffer = None, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            at = head.lower().find(b"\r\ncontent-length:")
            length = int(head[at + 17:].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length:]
            self.message(head)
