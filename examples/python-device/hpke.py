"""HPKE (RFC 9180): base mode, single shot, with DHKEM(X25519, HKDF-SHA256),
HKDF-SHA256 and AES-256-GCM: suite 2 of the protocol (SPEC.md section 8.1)."""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SUITE = 2
KEM_ID = b"KEM\x00\x20"
SUITE_ID = b"HPKE\x00\x20\x00\x01\x00\x02"
ENC_SIZE = 32


def extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869 section 2.3)."""
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
        i += 1
    return out[:length]


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def public_bytes(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def open_sealed(key: X25519PrivateKey, info: bytes, sealed: bytes) -> bytes:
    """Opens encapsulated key and ciphertext; raises when they do not fit."""
    enc, ciphertext = sealed[:ENC_SIZE], sealed[ENC_SIZE:]
    if len(ciphertext) < 16:
        raise ValueError("sealed key is cut short")
    dh = key.exchange(X25519PublicKey.from_public_bytes(enc))
    prk = labeled_extract(KEM_ID, b"", b"eae_prk", dh)
    shared = labeled_expand(KEM_ID, prk, b"shared_secret", enc + public_bytes(key), 32)

    psk_id_hash = labeled_extract(SUITE_ID, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(SUITE_ID, b"", b"info_hash", info)
    context = b"\x00" + psk_id_hash + info_hash
    secret = labeled_extract(SUITE_ID, shared, b"secret", b"")
    aead = labeled_expand(SUITE_ID, secret, b"key", context, 32)
    nonce = labeled_expand(SUITE_ID, secret, b"base_nonce", context, 12)
    return AESGCM(aead).decrypt(nonce, ciphertext, b"")
