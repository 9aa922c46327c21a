"""A whole session of protocol version 1 over a DEALER of libzmq. Argument: the node's endpoint."""

import struct
import sys
import time

import zmq

NOW = 1_705_680_000_000
NONCE = 42


def text(size, value):
    return struct.pack(size, len(value)) + value.encode()


def set_key(key, value):
    return b"S" + text(">i", key) + text(">i", value)


class Session:
    def __init__(self, endpoint):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.setsockopt(zmq.LINGER, 5_000)
        # A node that did not answer PING would be disconnected after half a second.
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, 100)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 500)
        self.socket.connect(endpoint)

    def send(self, tag, body):
        self.socket.send(b"zraft" + bytes([1, tag]) + body)

    def receive(self, *tags):
        """The body of the next message, which has one of these tags, and its tag."""
        frames = self.socket.recv_multipart()
        assert len(frames) == 1, frames
        assert frames[0][:6] == b"zraft\x01", frames
        tag = frames[0][6]
        assert tag in tags, frames
        return frames[0][7:], tag

    def command(self, request, payload):
        head = struct.pack(">qqi", request, request, len(payload))
        self.send(4, head + payload + struct.pack(">q", NOW))

    def expect_response(self, request):
        assert self.receive(6)[0] == struct.pack(">qi", request, 0)

    def keep_alive(self, timestamp):
        self.send(3, struct.pack(">q", timestamp))
        assert self.receive(5)[0] == struct.pack(">q", timestamp)


session = Session(sys.argv[1])
session.send(1, struct.pack(">H", 1) + text(">H", "app") + text(">H", "interop") + struct.pack(">q", NONCE))
created, _ = session.receive(1)
assert created[0] == 36 and created[37:] == struct.pack(">q", NONCE), created
session.keep_alive(NOW)

session.command(1, set_key("a", "1"))
session.expect_response(1)
session.command(2, b"W" + text(">i", "k"))
session.expect_response(2)
session.command(3, set_key("k", "v"))
notification = b"N" + text(">i", "k") + text(">i", "v")
told = {}
while len(told) < 2:
    body, tag = session.receive(6, 7)
    told[tag] = body
assert told[6] == struct.pack(">qi", 3, 0), told
assert told[7][:-8] == struct.pack(">qi", 1, len(notification)) + notification, told
session.send(5, struct.pack(">q", 1))

query = b"G" + text(">i", "a")
session.send(8, text(">H", "first") + struct.pack(">i", len(query)) + query + struct.pack(">q", NOW))
answer = b"\xff" + text(">i", "1")
assert session.receive(9)[0] == text(">H", "first") + struct.pack(">i", len(answer)) + answer

# Only heartbeats go over the connection for longer than a missing one is forgiven.
time.sleep(1.5)
session.keep_alive(NOW + 1)
session.send(6, b"\x01")
session.socket.close()
zmq.Context.instance().term()
