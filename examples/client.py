#!/usr/bin/env python3
"""A control client of distmsg with nothing but Python's standard library (3.9 or newer).

    client.py status
    client.py send bob 'the cellar is flooding'
    client.py listen --name printer --count 1

It speaks with the daemon of this machine through its Unix socket, or by the TCP interface port:

    client.py --interface 127.0.0.1:8080 --token-file ~/.local/state/distmsg/interface-token status
    client.py --interface dm1...ID...@cellar:8080 --token-file ~/cellar.token status

The protocol is JSON-RPC 2.0, one object a line. With a peer ID the connection is TLS 1.3, and the
certificate must be of that peer's own key: names, dates and authorities in it say nothing.

Exit codes: 0 done, 1 the daemon said no, 2 usage, 3 no way to the daemon, 6 another key answered.
"""

import argparse
import base64
import ipaddress
import json
import os
import socket
import ssl
import sys
from typing import Any, Dict, Iterator, Optional, Tuple

PROTOCOL = "distmsg-control/1"  # ALPN: without it, the interface port says nothing at all.
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3
GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
SPKI_HEAD = bytes.fromhex("302a300506032b6570032100")  # Ed25519, RFC 8410; the key follows.


class Refused(Exception):
    """The daemon answered with an error."""

    def __init__(self, error: Dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["data"]["code"]


class OtherKey(Exception):
    """Somebody else than the expected peer answered."""


def key_of_peer(peer: str) -> bytes:
    """The Ed25519 public key that a peer ID is: bech32m (BIP 350) with the prefix `dm`."""
    peer = peer.lower()
    if not peer.startswith("dm1") or len(peer) != 61 or any(c not in CHARSET for c in peer[3:]):
        raise ValueError(f"{peer!r} is no peer ID: it begins with dm1 and has 61 characters")
    values = [CHARSET.index(c) for c in peer[3:]]
    checksum = 1
    # The prefix goes in as the upper bits of its letters, a zero, and their lower bits.
    for value in [ord(c) >> 5 for c in "dm"] + [0] + [ord(c) & 31 for c in "dm"] + values:
        top, checksum = checksum >> 25, (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(GENERATORS):
            checksum ^= generator if top >> bit & 1 else 0
    if checksum != BECH32M:
        raise ValueError(f"{peer!r} is mistyped: its checksum does not match")
    bits = 0
    for value in values[:-6]:  # 52 characters of five bits: the key and four bits of padding.
        bits = bits << 5 | value
    return (bits >> 4).to_bytes(32, "big")


def key_of_certificate(der: bytes) -> bytes:
    """The Ed25519 public key of an X.509 certificate (RFC 5280).

    The certificate is walked, not searched: the bytes of a key could stand anywhere in it.
    """

    def element(at: int) -> Tuple[int, int]:
        """Where the contents of the element at an offset begin, and where it ends."""
        length, start = der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, start = int.from_bytes(der[start : start + size], "big"), start + size
        return start, start + length

    at, _ = element(0)  # Certificate
    at, _ = element(at)  # TBSCertificate
    for _ in range(6):  # version, number, algorithm, issuer, validity, subject
        _, at = element(at)
    _, end = element(at)
    spki = der[at:end]
    if not spki.startswith(SPKI_HEAD) or len(spki) != len(SPKI_HEAD) + 32:
        raise OtherKey("the certificate has no Ed25519 key")
    return spki[len(SPKI_HEAD) :]


def connect_unix(path: str) -> socket.socket:
    """A connection through the daemon's Unix socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def connect_tcp(address: str) -> socket.socket:
    """A connection to `[PEER_ID@]HOST:PORT`: with the ID over TLS, without it to this machine."""
    peer, _, place = address.rpartition("@")
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    if not peer and not is_loopback(host):
        raise ValueError(f"{host} is no loopback address; write PEER_ID@{place}")
    expected = key_of_peer(peer) if peer else None
    connection = socket.create_connection((host, int(port)), timeout=10)
    if expected is not None:
        connection = secure(connection, expected)
    connection.settimeout(None)
    return connection


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can be meant. A name could be anybody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secure(connection: socket.socket, expected: bytes) -> ssl.SSLSocket:
    """TLS with whoever has this key; nothing is sent to anybody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([PROTOCOL])
    # No authority vouches for the certificate: we look at its key. That the other end has that key
    # it proved by its signature of the handshake, which is always checked.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_socket(connection)
    certificate = tls.getpeercert(binary_form=True)
    found = key_of_certificate(certificate or b"")
    if found != expected:
        tls.close()
        raise OtherKey(f"another key answers there: {found.hex()}, not {expected.hex()}")
    return tls


class Client:
    """A control connection. Requests are made one after the other; events wait for `events`."""

    def __init__(self, connection: socket.socket, token: Optional[str] = None) -> None:
        self.lines = connection.makefile("rwb")
        self.last = 0
        self.waiting: list = []
        if token is not None:
            self.call("authenticate", token=token)

    def call(self, method: str, **params: Any) -> Dict[str, Any]:
        """Makes a request and waits for its reply."""
        self.last += 1
        request = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        self.lines.write(json.dumps(request).encode() + b"\n")
        self.lines.flush()
        while True:
            line = self.next_line()
            if "method" in line:  # An event that came before the reply.
                self.waiting.append(line)
            elif "error" in line:  # Of this request, or of the connection: then it has no ID.
                raise Refused(line["error"])
            elif line["id"] == self.last:
                return line["result"]

    def events(self) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """What happens, as it comes: the event's name and its parameters."""
        while True:
            line = self.waiting.pop(0) if self.waiting else self.next_line()
            if "error" in line:
                raise Refused(line["error"])
            if "method" in line:
                yield line["method"], line["params"]

    def next_line(self) -> Dict[str, Any]:
        line = self.lines.readline()
        if not line:
            raise ConnectionError("the daemon closed the connection")
        return json.loads(line)


def body_of(client: Client, message: Dict[str, Any]) -> bytes:
    """A message's body: text, or base64, or too large for one line and read in pieces."""
    if message.get("body") is not None:
        return message["body"].encode()
    if message.get("body_base64") is not None:
        return base64.b64decode(message["body_base64"])
    body = b""
    while len(body) < message["bytes"]:
        piece = client.call("read", cursor=message["cursor"], offset=len(body), bytes=128 * 1024)
        body += base64.b64decode(piece["data_base64"])
    return body


def send(client: Client, peer: str, body: str, timeout_ms: int) -> None:
    """Sends a message, and says what became of it: delivered, unless something is wrong."""
    sent = client.call("send", peer=peer, body=body, timeout_ms=timeout_ms)
    print(sent["state"], sent["id"])


def listen(client: Client, name: str, count: Optional[int]) -> None:
    """Prints what a named listener has not read, and acknowledges each once it is printed."""
    subscription = client.call("listen", name=name, window=16)["subscription"]
    for method, params in client.events():
        if method != "message" or params["subscription"] != subscription:
            continue
        message = params["message"]
        sys.stdout.buffer.write(f"{message['from']} ".encode() + body_of(client, message) + b"\n")
        sys.stdout.buffer.flush()
        client.call("ack", subscription=subscription, cursors=[message["cursor"]])
        if count is not None:
            count -= 1
            if count == 0:
                return


def usual_socket() -> str:
    """Where the daemon's socket is: the variable, the user's own daemon's, the system's."""
    own = os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "distmsg/socket")
    usual = own if os.path.exists(own) else "/run/distmsg/socket"
    return os.environ.get("DISTMSG_SOCKET") or usual


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A control client of distmsg.")
    parser.add_argument("--socket", help="the daemon's Unix socket", default=usual_socket())
    parser.add_argument("--interface", help="its interface port: [PEER_ID@]HOST:PORT")
    parser.add_argument("--token-file", help="the interface port's token")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="what the daemon is and how it does")
    sending = commands.add_parser("send", help="send a message")
    sending.add_argument("peer", help="alias, full ID or the beginning of one")
    sending.add_argument("body")
    sending.add_argument("--timeout-ms", type=int, default=10_000)
    listening = commands.add_parser("listen", help="print and acknowledge what is unread")
    listening.add_argument("--name", default="client.py")
    listening.add_argument("--count", type=int)
    args = parser.parse_args()
    if args.interface and not args.token_file:
        parser.error("--interface needs the token: name its file with --token-file")
    return args


def main() -> int:
    args = arguments()
    try:
        if args.interface:
            with open(args.token_file, encoding="ascii") as file:
                token = file.read().strip()
            client = Client(connect_tcp(args.interface), token)
        else:
            client = Client(connect_unix(args.socket))
        if args.command == "status":
            print(json.dumps(client.call("status"), indent=2))
        elif args.command == "send":
            send(client, args.peer, args.body, args.timeout_ms)
        else:
            listen(client, args.name, args.count)
    except Refused as error:
        print(f"client.py: {error} ({error.code})", file=sys.stderr)
        return 1
    except OtherKey as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 6
    except ValueError as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"client.py: no way to the daemon: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
