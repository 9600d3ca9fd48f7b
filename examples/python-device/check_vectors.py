#!/usr/bin/env python3
"""Runs the protocol's test vectors against this device's code.

    check_vectors.py DIRECTORY
"""

import json
import os
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import cose
import device
import hpke
import join
import messages
import srtp
from cose import Refused

checked = failed = 0


def expect(name: str, got, want):
    global checked, failed
    checked += 1
    if got != want:
        failed += 1
        print(f"{name}: got {got!r}, want {want!r}")


def outcome(f) -> str:
    try:
        f()
    except Refused as e:
        return e.failure
    return "ok"


def data(v: dict) -> bytes:
    return bytes(v["zeros"]) if v.get("zeros") else bytes.fromhex(v.get("wire", ""))


def public(file: dict, signer: str) -> bytes:
    return bytes.fromhex(file["signers"][signer]["public"])


def check_messages(file: dict):
    scope = f"{file['device']}/{file['stream']}".encode()
    for v in file["vectors"]:
        fields = None

        def receive(v=v):
            nonlocal fields
            m = device.parse_message(data(v), v["direction"])
            key = public(file, "device")
            if v["direction"] == "down":
                key = device.controller_key(m.controller, public(file, "kms"))
            fields = messages.check(v["direction"], m.kind, m.verify(key, scope))
            expect(v["name"], (m.kind, cose.digest(m.payload).hex()), (v.get("type"), v.get("hash")))

        expect(v["name"], outcome(receive), v["outcome"])
        if v["outcome"] == "ok" and v["direction"] == "up" and "other headers" not in v["name"]:
            key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(file["signers"]["device"]["seed"]))
            made = cose.sign(key, f"gkrp/1.up.{v['type']}", scope, cose.encode(fields))
            expect(v["name"] + ", made here", made.hex(), v["wire"])


def check_statements(file: dict):
    for v in file["vectors"]:
        kind = v["kind"]
        key = public(file, v["signer"])
        expect(v["name"], outcome(lambda: messages.check_statement(kind, cose.open_statement(data(v), f"gkrp/1.{kind}", key))), v["outcome"])


def check_envelopes(file: dict):
    for v in file["vectors"]:
        e = cose.open_statement(data(v), "gkrp/1.key", public(file, "kms"))
        info = device.envelope_info(e)
        expect(v["name"] + ", info", info.hex(), v["info"])
        if v["suite"] != hpke.SUITE:
            continue  # Debian has no ML-KEM
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(v["private"]))
        try:
            media_key = hpke.open_sealed(key, info, e[7])
        except (InvalidTag, ValueError):
            expect(v["name"], "open", v["outcome"])
            continue
        expect(v["name"], "ok", v["outcome"])
        expect(v["name"], media_key.hex(), v["media_key"])
        expect(v["name"], device.confirmation(media_key, e[1], e[2], e[3], e[5]).hex(), v["confirm"])


def check_confirm(file: dict):
    for v in file["vectors"]:
        got = device.confirmation(bytes.fromhex(v["media_key"]), v["stream"], bytes.fromhex(v["session"]), v["epoch"], v["receiver"])
        expect(v["name"], got.hex(), v["confirm"])


def check_srtp(file: dict):
    """A device only seals: what a receiver accepts must be what it would send."""
    for v in file["vectors"]:
        key = bytes.fromhex(v["media_key"])
        expect(v["name"], srtp.derive(key[:32], key[32:], 0, 32).hex(), v["session_key"])
        expect(v["name"], srtp.derive(key[:32], key[32:], 2, 12).hex(), v["session_salt"])
        sealer = srtp.Sealer(key, v["ssrc"], v["epoch"], v["first"])
        for p in v["packets"]:
            if p["outcome"] != "ok":
                continue
            header, payload = (bytes.fromhex(p.get(k, "")) for k in ("header", "payload"))
            expect(p["name"], sealer.seal_packet(p["index"], header, payload).hex(), p["packet"])
            expect(p["name"], struct.unpack(">I", bytes.fromhex(p["packet"])[-4:])[0], v["epoch"])


def check_tokens(file: dict):
    for v in file["vectors"]:
        token = None

        def parse(v=v):
            nonlocal token
            token = join.Token(v["text"])

        expect(v["name"], outcome(parse), v["outcome"])
        if v["outcome"] == "ok":
            got = (token.address, token.fingerprint.hex(), token.device, token.secret.hex())
            expect(v["name"], got, tuple(v[k] for k in ("address", "ca_fingerprint", "device", "secret")))


def main():
    for name, check in (
        ("messages", check_messages), ("statements", check_statements), ("envelopes", check_envelopes),
        ("confirm", check_confirm), ("srtp", check_srtp), ("tokens", check_tokens),
    ):
        with open(os.path.join(sys.argv[1], name + ".json"), encoding="utf-8") as f:
            check(json.load(f))
    print(f"{checked} checks, {failed} failed")
    sys.exit(failed > 0 or checked == 0)


if __name__ == "__main__":
    main()
