"""SRTP with AEAD_AES_256_GCM and the epoch as MKI (SPEC.md section 9)."""

import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG_SIZE = 16
MKI_SIZE = 4
MAX_INDEX = 2**48 - 1


def derive(master_key: bytes, master_salt: bytes, label: int, length: int) -> bytes:
    """RFC 3711 section 4.3.3 with AES-256 in counter mode."""
    block = bytearray(master_salt + bytes(4))
    block[7] ^= label
    counter = Cipher(algorithms.AES(master_key), modes.CTR(bytes(block))).encryptor()
    return counter.update(bytes(length))


def initialisation_vector(salt: bytes, ssrc: int, index: int) -> bytes:
    iv = struct.pack(">HIIH", 0, ssrc, index >> 16, index & 0xFFFF)
    return bytes(a ^ b for a, b in zip(iv, salt))


class Sealer:
    """Protects the packets of one epoch. An index works once, and they rise."""

    def __init__(self, media_key: bytes, ssrc: int, epoch: int, first: int):
        master_key, master_salt = media_key[:32], media_key[32:]
        self.aead = AESGCM(derive(master_key, master_salt, 0x00, 32))
        self.salt = derive(master_key, master_salt, 0x02, 12)
        self.ssrc, self.epoch, self.next = ssrc, epoch, first

    def seal(self, index: int, payload_type: int, marker: bool, timestamp: int, payload: bytes) -> bytes:
        if index < self.next or index > MAX_INDEX:
            raise ValueError(f"index {index} was used or passed: a nonce must not be used twice")
        self.next = index + 1
        header = struct.pack(">BBHII", 0x80, payload_type | (0x80 if marker else 0), index & 0xFFFF, timestamp & 0xFFFFFFFF, self.ssrc)
        return self.seal_packet(index, header, payload)

    def seal_packet(self, index: int, header: bytes, payload: bytes) -> bytes:
        sealed = self.aead.encrypt(initialisation_vector(self.salt, self.ssrc, index), payload, header)
        return header + sealed + struct.pack(">I", self.epoch)


def tag_of(packet: bytes) -> bytes:
    return packet[-TAG_SIZE - MKI_SIZE : -MKI_SIZE]
