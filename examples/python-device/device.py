#!/usr/bin/env python3
"""A minimal Gaitkeeper device: sends an MPEG-TS file as SRTP under keys that the
service grants and changes. Written from gkrp/SPEC.md; the numbers of sections
below are that document's.

    device.py --join TOKEN --source FILE.ts [--state DIR] [--rate 4000000]
"""

import argparse
import os
import queue
import random
import secrets
import socket
import struct
import sys
import threading
import time

import paho.mqtt.client as mqtt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import cose
import hpke
import join
import messages
import srtp
from cose import Refused

VERSIONS = [0, 1]
TS_PACKET, TS_PER_RTP, TS_PAYLOAD_TYPE, TS_CLOCK = 188, 7, 33, 90000
FINAL = {"unsupported-version", "unsupported-suite", "revoked", "not-yours", "epoch-jump", "malformed"}
KEPT_PREKEYS, KEPT_ACKS, KEPT_SENT = 64, 16, 16
RETRY, RETRY_MAX = 0.25, 2.0
SAME_REFILL, NEXT_REFILL = 1.0, 0.1
TAG_PREFIX, MAX_TAGS = 4, 8000


def log(*words):
    print(*words, file=sys.stderr, flush=True)


class Media(threading.Thread):
    """The media path. It waits for nothing but the first key: whatever becomes of
    the broker, it goes on under the key that it has."""

    def __init__(self, source: str, rate: int, first: int, hurry):
        super().__init__(daemon=True)
        self.source, self.rate, self.hurry = source, rate, hurry
        self.lock = threading.Lock()
        self.keyed = threading.Event()
        self.ended = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.next = self.start_of_report = first
        self.sealer, self.since, self.addresses, self.expires = None, 0.0, [], None
        self.session, self.want_tags, self.tags = None, False, []
        self.packets = self.bytes = 0

    def install(self, session, sealer_for) -> int:
        """Switches to a key; gives the first index that it protects (9)."""
        with self.lock:
            if session is not self.session:
                self.session, self.addresses = session, session.addresses
                self.packets = self.bytes = 0
                self.start_of_report, self.want_tags, self.tags = self.next, session.want_tags, []
            self.sealer, self.since = sealer_for(self.next), time.monotonic()
            self.expires = time.monotonic() + session.reject_after if session.reject_after else None
            first = self.next
        self.keyed.set()
        return first

    def report(self) -> dict:
        with self.lock:
            since = int((time.monotonic() - self.since) * 1000)  # before the range's end is read (6.6)
            r = {5: self.start_of_report, 6: self.next, 7: self.packets, 8: self.bytes, 11: since}
            if self.want_tags and 0 < len(self.tags) <= MAX_TAGS:
                r[10] = b"".join(self.tags)
            self.start_of_report, self.tags = self.next, []
            return r

    def run(self):
        self.keyed.wait()
        began, sent = time.monotonic(), 0
        with open(self.source, "rb") as f:
            while payload := f.read(TS_PACKET * TS_PER_RTP):
                due = began + sent * 8 / self.rate
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                self.send(int((due - began) * TS_CLOCK), payload, marker=sent == 0)
                sent += len(payload)
        self.ended = True
        self.hurry()

    def send(self, timestamp: int, payload: bytes, marker: bool):
        with self.lock:
            if self.expires is not None and time.monotonic() > self.expires:
                return  # the key is past its life (6.3)
            packet = self.sealer.seal(self.next, TS_PAYLOAD_TYPE, marker, timestamp, payload)
            self.next += 1
            self.packets += 1
            self.bytes += len(payload)
            if self.want_tags:
                self.tags.append(srtp.tag_of(packet)[:TAG_PREFIX])
            filling = len(self.tags) == MAX_TAGS // 2
            addresses = self.addresses
        for address in addresses:
            try:
                self.socket.sendto(packet, address)
            except OSError:
                pass  # a network that is away has lost the packet
        if filling:
            self.hurry()


class Session:
    """One session, HELLO to BYE (10.1)."""

    def __init__(self, device):
        self.device, self.id = device, secrets.token_bytes(16)
        self.prekeys = {}  # key id → private half, oldest first
        self.stage = "asking"
        self.nonce, self.sent, self.acks = None, [], []
        self.current = self.term = self.number = 0
        self.want_tags = False
        self.addresses = []
        self.report_at = None
        self.refilled = self.supplied = float("-inf")
        self.over = None  # (code, text) at the end
        self.offer = {
            1: device.id, 2: device.stream, 3: self.id, 4: device.versions, 5: [hpke.SUITE],
            6: {1: "mp2t", 2: TS_PAYLOAD_TYPE, 3: TS_CLOCK}, 7: device.high_water,
            9: [self.prekey() for _ in range(4)], 10: "gaitkeeper-python-device/1", 11: device.media.next,
        }

    # What is sent.

    def send(self, kind: str, fields: dict) -> bytes:
        payload = cose.encode(fields)
        self.sent = [*self.sent, cose.digest(payload)][-KEPT_SENT:]
        self.device.publish(kind, payload)
        return payload

    def hello(self):
        fields = dict(self.offer)
        if self.nonce is not None:
            fields[8] = self.nonce
        self.hello_hash = cose.digest(self.send("hello", fields))

    def prekey(self) -> bytes:
        key = X25519PrivateKey.generate()
        public = hpke.public_bytes(key)
        self.prekeys[cose.key_id(public)] = key
        while len(self.prekeys) > KEPT_PREKEYS:
            self.prekeys.pop(next(iter(self.prekeys)))
        d = self.device
        fields = {1: d.id, 2: d.stream, 3: self.id, 4: hpke.SUITE, 5: public}
        return cose.sign(d.identity.key, "gkrp/1.prekey", b"", cose.encode(fields))

    def refill(self):
        """A REFILL that comes again soon gets the same answer, or none (6.8)."""
        now = time.monotonic()
        if now - self.refilled < NEXT_REFILL:
            return
        if now - self.supplied >= SAME_REFILL:
            self.supplied = now
            self.supply = {1: self.device.stream, 2: self.id, 3: [self.prekey() for _ in range(4)]}
        self.refilled = now
        self.send("refill", self.supply)

    def report(self):
        self.number += 1
        fields = {1: self.device.stream, 2: self.id, 3: self.number, 4: self.current, **self.device.media.report()}
        self.send("report", fields)
        self.report_at = time.monotonic() + self.report_every

    # What is heard. The message verified already.

    def hear(self, kind: str, m: dict, payload: bytes):
        if m[2 if kind in ("grant", "refill") else 1] != self.id:
            return
        if kind == "challenge" and self.stage != "running" and m[2] in self.sent and m[3] != self.nonce:
            self.stage, self.nonce = "proving", m[3]
            self.ask()
        elif kind == "welcome" and self.stage != "asking":
            self.welcome(m)
        elif kind == "grant" and self.stage == "running":
            self.grant(m, payload)
        elif kind == "reject" and m.get(2) in self.sent:
            self.reject(m)
        elif kind == "refill" and self.stage == "running":
            self.refill()
        elif kind == "stop":
            self.over = (m[2], m.get(3, ""))

    def ask(self):
        """HELLO now, and again until it is answered (13)."""
        self.wait = RETRY
        self.hello_at = time.monotonic() + self.wait
        self.hello()

    def welcome(self, m: dict):
        """10.1: only an answer to the very HELLO that was sent last counts."""
        offer = self.offer
        if m[2] != self.hello_hash or m[3] != offer[4] or m[4] != offer[5] or m[7] != offer[2]:
            return
        if m[5] not in offer[4] or m[6] != hpke.SUITE:
            return
        if self.stage == "proving":
            policy = m[10]
            self.stage, self.sent, self.ssrc = "running", [], m[8]
            self.report_every = min(max(policy[1], 100), 60000) / 1000
            self.reject_after = policy[2]
            self.want_tags = m[5] >= 1 and bool(policy.get(3))
            for address in m[9]:
                host, _, port = address.rpartition(":")
                self.addresses.append((socket.gethostbyname(host.strip("[]")), int(port)))
            log(f"session {self.id.hex()} accepted: version {m[5]}, ssrc {self.ssrc:08x}")
        self.grant(messages.check("down", "grant", cose.decode_payload(m[11])), m[11])

    def grant(self, g: dict, payload: bytes):
        """11: a new key, or the stored ACK of one that is in place."""
        epoch, term = g[3], g[7]
        if g[1] != self.device.stream or g[2] != self.id or term < self.term:
            return
        self.term = term
        for known, ack in self.acks:
            if known == epoch:
                self.send("ack", ack)
                return
        if epoch <= self.current:
            return
        self.supplied = float("-inf")
        try:
            media_key = self.open(epoch, g[6])
        except (Refused, InvalidTag, ValueError) as e:
            log(f"the key of epoch {epoch} was refused: {e}")
            self.send("reject", {1: self.id, 2: cose.digest(payload), 3: "cannot-open"})
            return
        confirm = self.confirm(media_key, epoch)
        first = self.device.media.install(self, lambda i: srtp.Sealer(media_key, self.ssrc, epoch, i))
        self.current = self.device.high_water = epoch
        if self.report_at is None:
            self.report_at = time.monotonic() + self.report_every
        ack = {1: self.device.stream, 2: self.id, 3: epoch, 4: cose.digest(payload), 5: confirm, 6: first, 7: [self.prekey()]}
        self.acks = [*self.acks, (epoch, ack)][-KEPT_ACKS:]
        self.send("ack", ack)
        self.device.identity.raise_high_water(self.device.stream, epoch)
        log(f"epoch {epoch} from index {first} on ({g[4]})")

    def open(self, epoch: int, wire: bytes) -> bytes:
        """7.1 and 8.2."""
        d = self.device
        e = messages.check_statement("key", cose.open_statement(wire, "gkrp/1.key", d.identity.kms_public))
        want = {1: d.stream, 2: self.id, 3: epoch, 4: hpke.SUITE, 5: f"device/{d.id}", 8: self.ssrc}
        if any(e.get(k) != v for k, v in want.items()) or epoch <= d.high_water:
            raise Refused("malformed", "the envelope is for something else")
        if e[6] not in self.prekeys:
            raise Refused("malformed", "the envelope is sealed to a prekey that is not there, or was used")
        media_key = hpke.open_sealed(self.prekeys[e[6]], envelope_info(e), e[7])
        del self.prekeys[e[6]]
        if len(media_key) != 44:
            raise Refused("malformed", "not a media key")
        return media_key

    def confirm(self, media_key: bytes, epoch: int) -> bytes:
        return confirmation(media_key, self.device.stream, self.id, epoch, f"device/{self.device.id}")

    def reject(self, m: dict):
        code, text = m[3], m.get(4, "")
        if code in FINAL or self.stage == "running":
            self.over = (code, f"{text} {m.get(5, '')}".strip())
            return
        wait = min(max(m.get(6, 0) / 1000, RETRY), 60)
        log(f"not now: {code}: {text}; again in {wait} s")
        self.stage, self.nonce = "asking", None
        self.wait, self.hello_at = RETRY, time.monotonic() + wait

    # What time brings.

    def deadline(self) -> float:
        return self.report_at if self.stage == "running" and self.report_at else self.hello_at

    def tick(self):
        if self.stage == "running":
            self.report()
            return
        self.hello()
        self.wait = min(2 * self.wait, RETRY_MAX)
        self.hello_at = time.monotonic() + self.wait


def envelope_info(envelope: dict) -> bytes:
    """What HPKE binds a sealed key to (8.2)."""
    return b"gkrp/1 media key\x00" + cose.encode({k: None if k == 7 else envelope[k] for k in range(1, 9)})


def confirmation(media_key: bytes, stream: str, session: bytes, epoch: int, receiver: str) -> bytes:
    """The proof that a receiver has the key (8.3)."""
    info = b"gkrp confirm"
    for field in (stream.encode(), session, struct.pack(">I", epoch), receiver.encode()):
        info += struct.pack(">H", len(field)) + field
    return hpke.expand(media_key, info, 32)


class Device:
    def __init__(self, identity: join.Identity, source: str, rate: int, versions: list[int]):
        self.versions = versions
        self.identity, self.id, self.stream = identity, identity.device, identity.streams[0]
        self.high_water = identity.high_water(self.stream)
        self.inbox = queue.Queue(256)
        # Unpredictable, and with room before the first wrap (9).
        first = random.SystemRandom().randint(1, 2**15)
        self.media = Media(source, rate, first, lambda: self.offer_to_inbox(None))
        self.vouched = (None, None)  # the controller statement that verified last, and its key
        self.mqtt = mqtt.Client(client_id=self.id, clean_session=True, protocol=mqtt.MQTTv311)
        if not identity.broker.plain:
            self.mqtt.tls_set_context(identity.tls())
        self.mqtt.reconnect_delay_set(1, 1)
        self.mqtt.on_connect = lambda client, *_: client.subscribe(self.topic("down"), 0)
        self.mqtt.on_message = lambda _client, _data, m: self.offer_to_inbox(m.payload)
        self.mqtt.connect_async(identity.broker.host, identity.broker.port, keepalive=5)
        self.mqtt.loop_start()

    def offer_to_inbox(self, item):
        try:
            self.inbox.put_nowait(item)
        except queue.Full:
            pass  # the sender repeats what matters

    def topic(self, direction: str) -> str:
        return f"gkrp/1/{self.id}/{self.stream}/{direction}"

    def publish(self, kind: str, payload: bytes):
        wire = cose.sign(self.identity.key, f"gkrp/1.up.{kind}", self.scope(), payload)
        if self.mqtt.is_connected():
            self.mqtt.publish(self.topic("up"), wire, qos=0)

    def scope(self) -> bytes:
        return f"{self.id}/{self.stream}".encode()

    def verify(self, wire: bytes):
        """5.3: a message is of a service that the KMS vouches for, and for this stream."""
        m = parse_message(wire, "down")
        if self.vouched[0] is None or self.vouched[0] != m.controller:
            self.vouched = (m.controller, controller_key(m.controller, self.identity.kms_public))
        return m.kind, messages.check("down", m.kind, m.verify(self.vouched[1], self.scope())), m.payload

    def run(self):
        self.media.start()
        while True:
            session = Session(self)
            session.ask()
            if self.hold(session):
                return
            code, text = session.over
            if code in FINAL:
                raise SystemExit(f"the service ended the stream: {code}: {text}")
            log(f"session ended by the service: {code}: {text}; a new one follows")
            time.sleep(1)

    def hold(self, session) -> bool:
        """Runs a session to its end; true when the source's end came first."""
        while session.over is None:
            if self.media.ended and session.stage == "running":
                self.bye(session)
                return True
            wait = max(0.0, session.deadline() - time.monotonic())
            try:
                item = self.inbox.get(timeout=wait)
            except queue.Empty:
                session.tick()
                continue
            if item is None:  # the media path: a report is due
                if session.stage == "running" and session.report_at:
                    session.report()
                continue
            try:
                session.hear(*self.verify(item))
            except Refused as e:
                log(f"message left out: {e}")
        return False

    def bye(self, session):
        session.report()
        fields = {1: self.stream, 2: session.id, 3: self.media.next, 4: "source ended"}
        for _ in range(2):
            session.send("bye", fields)
            time.sleep(0.1)
        log(f"sent {self.media.packets} packets in this session, {self.media.bytes} bytes, last epoch {session.current}")
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def controller_key(statement: bytes, kms_public: bytes) -> bytes:
    """The key of a service that the KMS vouches for (7.3)."""
    return messages.check_statement("controller", cose.open_statement(statement, "gkrp/1.controller", kms_public))[2]


def parse_message(wire: bytes, direction: str) -> cose.Sign1:
    """5.3 up to the signature."""
    if len(wire) > cose.MAX_REPORT:
        raise Refused("too-large", f"{len(wire)} bytes")
    m = cose.Sign1(wire)
    prefix, _, m.kind = str(m.typ).rpartition(".")
    if prefix != f"gkrp/1.{direction}" or (direction, m.kind) not in messages.RULES:
        raise Refused("malformed", f"type {m.typ!r} does not go {direction}")
    if m.kind != "report" and len(wire) > cose.MAX_MESSAGE:
        raise Refused("too-large", f"{m.kind} of {len(wire)} bytes")
    return m


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--join", help="join token, or @FILE that holds it; needed at the first start")
    p.add_argument("--source", required=True, help="MPEG-TS file to send")
    p.add_argument("--state", default=os.path.expanduser("~/.gaitkeeper/python-device"), help="directory of this device's identity")
    p.add_argument("--rate", type=int, default=4_000_000, help="bits per second")
    p.add_argument("--versions", type=int, nargs="+", default=VERSIONS, help="minor versions of the protocol to offer")
    a = p.parse_args()
    if not os.path.exists(os.path.join(a.state, "identity.json")):
        if not a.join:
            p.error("this device has not joined yet: give --join TOKEN")
        text = a.join
        if text.startswith("@"):
            with open(text[1:], encoding="ascii") as f:
                text = f.read()
        try:
            join.join(join.Token(text), a.state)
        except (Refused, OSError) as e:
            raise SystemExit(f"cannot join: {e}") from e
    Device(join.Identity(a.state), a.source, a.rate, a.versions).run()


if __name__ == "__main__":
    main()
