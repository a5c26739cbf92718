"""Reads byte streams as other parsers of HTTP/1.1 do: PyPI's h11 and httptools (llhttp, Node's own).

stdin: frames of one letter (Q: a client's stream, S: a server's to a GET, H: to a HEAD), a length of four bytes, the
stream. stdout: one line of JSON a frame, {"h11": READING, "httptools": READING}. A reading is {"messages": [...],
"end": "open" or what was wrong}; a message has "start" (method and target, or status and reason), "version", "fields"
(names in lower case), "body" and "whole". Bytes are text in Latin-1.
"""

import json
import sys

import h11
import httptools


def text(data) -> str:
    return bytes(data).decode("latin-1")


def message(start: list, version: str, fields: list) -> dict:
    return {"start": start, "version": version, "fields": fields, "body": "", "whole": False}


def by_h11(kind: str, stream: bytes) -> dict:
    server = kind == "Q"
    peer = h11.Connection(h11.SERVER if server else h11.CLIENT)
    messages = []
    end = "open"
    try:
        if not server:
            peer.send(h11.Request(method="HEAD" if kind == "H" else "GET", target="/", headers=[("Host", "a")]))
            peer.send(h11.EndOfMessage())
        if stream:
            # Nothing at all would say that the connection has ended.
            peer.receive_data(stream)
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                break
            if event is h11.PAUSED:
                # A server's cycle goes on when it has answered; a client asks for nothing more.
                if not server or peer.our_state is not h11.SEND_RESPONSE:
                    break
                # No success, which would open a tunnel after CONNECT.
                peer.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                    end = "closed"
                    break
                peer.start_next_cycle()
            elif isinstance(event, h11.Request):
                fields = [[text(name), text(value)] for name, value in event.headers]
                messages.append(message([text(event.method), text(event.target)], text(event.http_version), fields))
            elif isinstance(event, h11.Response):
                fields = [[text(name), text(value)] for name, value in event.headers]
                start = [str(event.status_code), text(event.reason)]
                messages.append(message(start, text(event.http_version), fields))
            elif isinstance(event, h11.Data):
                messages[-1]["body"] += text(event.data)
            elif isinstance(event, h11.EndOfMessage):
                messages[-1]["whole"] = True
                if server:
                    continue
                break
    except h11.RemoteProtocolError as error:
        end = f"refused: {error}"
    return {"messages": messages, "end": end}


class Callbacks:
    def __init__(self) -> None:
        self.messages: list = []
        self.parser = None
        self.start()

    def start(self) -> None:
        self.url, self.status, self.fields = b"", b"", []

    def on_message_begin(self) -> None:
        self.start()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, status: bytes) -> None:
        self.status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come the same way, behind the head.
        self.fields.append([text(name).lower(), text(value)])

    def on_headers_complete(self) -> None:
        if isinstance(self.parser, httptools.HttpRequestParser):
            start = [text(self.parser.get_method()), text(self.url)]
        else:
            start = [str(self.parser.get_status_code()), text(self.status)]
        self.messages.append(message(start, self.parser.get_http_version(), list(self.fields)))

    def on_body(self, body: bytes) -> None:
        self.messages[-1]["body"] += text(body)

    def on_message_complete(self) -> None:
        self.messages[-1]["whole"] = True


def by_httptools(kind: str, stream: bytes) -> dict:
    callbacks = Callbacks()
    parser = httptools.HttpRequestParser if kind == "Q" else httptools.HttpResponseParser
    callbacks.parser = parser(callbacks)
    end = "open"
    try:
        callbacks.parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        end = "upgraded"
    except httptools.HttpParserError as error:
        end = f"refused: {error}"
    return {"messages": callbacks.messages, "end": end}


def main() -> None:
    source = sys.stdin.buffer
    while frame := source.read(5):
        kind, length = chr(frame[0]), int.from_bytes(frame[1:], "big")
        stream = source.read(length)
        print(json.dumps({"h11": by_h11(kind, stream), "httptools": by_httptools(kind, stream)}))


main()
