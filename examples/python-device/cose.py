"""Framing: strict CBOR and COSE_Sign1 (SPEC.md section 5)."""

import hashlib
import io

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MAX_MESSAGE = 8192
MAX_REPORT = 32768
MAX_DEPTH = 4
MAX_ENTRIES = 64

ALG, KID, TYP = 1, 4, 16
EDDSA = -8
CONTROLLER = -70001
SIGN1_TAG = 18


class Refused(Exception):
    """A message or statement that is dropped; the text begins with its class."""

    def __init__(self, failure: str, text: str):
        super().__init__(f"{failure}: {text}")
        self.failure = failure


def encode(value) -> bytes:
    """Core deterministic encoding. For the keys that occur here it is the same
    order as cbor2's canonical one."""
    return cbor2.dumps(value, canonical=True)


def digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()


def decode(data: bytes):
    """Decodes one item and nothing behind it."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream, str_errors="strict").decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as e:
        raise Refused("malformed", f"not CBOR: {e}") from e
    if stream.tell() != len(data):
        raise Refused("malformed", "bytes behind the end")
    return value


def check_plain(value, depth=MAX_DEPTH):
    """Only what a payload may hold."""
    if isinstance(value, (dict, list)):
        if depth == 0 or len(value) > MAX_ENTRIES:
            raise Refused("malformed", "nested too deep, or too many entries")
        for v in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            check_plain(v, depth - 1)
    elif not isinstance(value, (int, bytes, str, type(None))):  # bool is an int
        raise Refused("malformed", f"a {type(value).__name__} in a payload")


def decode_payload(payload: bytes) -> dict:
    fields = decode(payload)
    check_plain(fields)
    # A sender encodes deterministically: whatever does not come out the same has a
    # key twice, an indefinite length or a number that is longer than needed.
    if not isinstance(fields, dict) or encode(fields) != payload:
        raise Refused("malformed", "not a map in deterministic encoding")
    if any(not isinstance(k, int) for k in fields):
        raise Refused("malformed", "a key that is not an integer")
    if any(k < 0 for k in fields):
        raise Refused("unknown-mandatory", f"field {min(fields)}")
    return fields


def key_id(public: bytes) -> bytes:
    return digest(public)[:16]


def raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def to_be_signed(protected: bytes, aad: bytes, payload: bytes) -> bytes:
    return encode(["Signature1", protected, aad, payload])


def sign(key: Ed25519PrivateKey, typ: str, aad: bytes, payload: bytes) -> bytes:
    protected = encode({ALG: EDDSA, KID: key_id(raw_public(key)), TYP: typ})
    signature = key.sign(to_be_signed(protected, aad, payload))
    return encode(cbor2.CBORTag(SIGN1_TAG, [protected, {}, payload, signature]))


class Sign1:
    """A COSE_Sign1 that was taken apart. Nothing of it is believed before verify."""

    def __init__(self, wire: bytes):
        item = decode(wire)
        if not isinstance(item, cbor2.CBORTag) or item.tag != SIGN1_TAG:
            raise Refused("malformed", "not a COSE_Sign1")
        parts = item.value
        if not isinstance(parts, list) or len(parts) != 4:
            raise Refused("malformed", "not a COSE_Sign1")
        self.protected, unprotected, self.payload, self.signature = parts
        if not all(isinstance(p, bytes) for p in (self.protected, self.payload, self.signature)) or not isinstance(unprotected, dict):
            raise Refused("malformed", "not a COSE_Sign1")
        headers = decode(self.protected)
        if not isinstance(headers, dict) or headers.get(ALG) != EDDSA:
            raise Refused("malformed", "the algorithm must be EdDSA")
        self.typ = headers.get(TYP)
        self.controller = unprotected.get(CONTROLLER)

    def verify(self, public: bytes, aad: bytes) -> dict:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, to_be_signed(self.protected, aad, self.payload))
        except InvalidSignature as e:
            raise Refused("signature", "does not verify") from e
        return decode_payload(self.payload)


def open_statement(wire: bytes, typ: str, public: bytes) -> dict:
    """A statement of somebody whose key is known. Its fields are not looked at."""
    if not isinstance(wire, bytes):
        raise Refused("malformed", "no statement")
    if len(wire) > MAX_MESSAGE:
        raise Refused("too-large", f"{len(wire)} bytes")
    s = Sign1(wire)
    if s.typ != typ:
        raise Refused("malformed", f"a {s.typ} where a {typ} is wanted")
    return s.verify(public, b"")
