"""hyper-h2, a client of HTTP/2 by other people, with its state machine and its HPACK: HOST, PORT and the certificate's file
are the arguments. What the library calls a fault of ours is an exception here."""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

host, port, certificate = sys.argv[1], int(sys.argv[2]), sys.argv[3]
Code = h2.settings.SettingCodes


class Peer:
    def __init__(self, settings=None):
        context = ssl.create_default_context(cafile=certificate)
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection((host, port), timeout=30)
        self.socket = context.wrap_socket(raw, server_hostname="a.example")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.flush()
        self.status, self.fields, self.bodies, self.over, self.reset = {}, {}, {}, set(), {}

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def take(self, acknowledge=True):
        """Reads once."""
        came = self.socket.recv(65536)
        assert came, "the connection ended"
        events = self.h2.receive_data(came)
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                self.fields[event.stream_id] = dict(event.headers)
                self.status[event.stream_id] = int(self.fields[event.stream_id][":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if acknowledge and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.over.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.reset[event.stream_id] = event.error_code
            elif isinstance(event, h2.events.ConnectionTerminated):
                raise AssertionError(f"GOAWAY {event.error_code}")
        self.flush()
        return events

    def begin(self, path, method="GET", more=(), end=True):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "a.example"), (":path", path), *more]
        self.h2.send_headers(stream, head, end_stream=end)
        self.flush()
        return stream

    def send(self, stream, body):
        """Sends within the windows."""
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self.take()
                continue
            # Some of it padded.
            pad = 7 if 100 < room < len(body) else None
            piece = body[: room - (8 if pad else 0)]
            self.h2.send_data(stream, piece, pad_length=pad)
            body = body[len(piece) :]
            self.flush()
        self.h2.end_stream(stream)
        self.flush()

    def finish(self, stream):
        while stream not in self.over:
            assert stream not in self.reset, self.reset
            self.take()
        return self.status[stream], self.bodies.get(stream, b"")


def tables():
    """Fields that repeat and change, so that both tables of HPACK move; a smaller one in the middle; none at all."""
    for size in (4096, 0, 65536):
        peer = Peer({Code.HEADER_TABLE_SIZE: size})
        for n in range(120):
            value = str(n) * (n % 60 + 1)
            stream = peer.begin("/fields", more=[("x-echo", value), (f"x-{n % 7}", "same"), ("cookie", f"n={n}"), ("cookie", "b=2")])
            assert peer.finish(stream)[0] == 200
            assert peer.fields[stream]["x-echo"] == value, (size, n, peer.fields[stream])
            assert peer.fields[stream]["x-cookie"] == f"n={n}; b=2", peer.fields[stream]


def large_heads():
    """Over several frames (CONTINUATION), both ways."""
    peer = Peer()
    value = "v" * 15_000
    # More than one frame holds, less than a list may be.
    stream = peer.begin("/fields", more=[("x-echo", value)])
    assert peer.finish(stream)[0] == 200
    assert peer.fields[stream]["x-echo"] == value


def bodies():
    whole = bytes(range(256)) * 4096
    peer = Peer({Code.INITIAL_WINDOW_SIZE: 10_000, Code.MAX_FRAME_SIZE: 20_000})
    streams = []
    for n in range(8):
        stream = peer.begin("/echo", "POST", end=False)
        peer.send(stream, whole[n:])
        streams.append((stream, whole[n:]))
    for stream, body in streams:
        assert peer.finish(stream) == (200, body), stream


def resets():
    peer = Peer()
    for n in range(60):
        stream = peer.begin("/echo", "POST", end=False)
        if n % 2:
            peer.h2.send_data(stream, b"some of it")
        peer.h2.reset_stream(stream, 8)
        peer.flush()
        # One answer between them keeps it from being a flood.
        assert peer.finish(peer.begin("/fields", more=[("x-echo", "1")]))[0] == 200


def windows():
    """A client that gives no room gets what fits, and the rest when it does."""
    peer = Peer({Code.INITIAL_WINDOW_SIZE: 1})
    stream = peer.begin("/fields", more=[("x-echo", "1")])
    while not peer.bodies.get(stream):
        peer.take(acknowledge=False)
    assert peer.bodies[stream] == b"o" and stream not in peer.over
    peer.h2.increment_flow_control_window(10, stream)
    peer.flush()
    assert peer.finish(stream) == (200, b"ok")


def pings():
    peer = Peer()
    for n in range(50):
        peer.h2.ping(n.to_bytes(8, "big"))
        peer.flush()
        while not any(isinstance(event, h2.events.PingAckReceived) for event in peer.take()):
            pass
    assert peer.finish(peer.begin("/fields", more=[("x-echo", "1")]))[0] == 200


for part in (tables, large_heads, bodies, resets, windows, pings):
    part()
print("all of it is fine")
