"""Joining: a token becomes an identity, once (SPEC.md section 3)."""

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

import cose
import messages

TIMEOUT = 15


class Token:
    def __init__(self, text: str):
        text = text.strip()
        if not text.startswith("gkj1."):
            raise cose.Refused("malformed", "a join token begins with gkj1.")
        body = text[len("gkj1.") :]
        try:
            fields = cose.decode(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
            self.address, self.fingerprint, self.device, self.secret = (fields[k] for k in (1, 2, 3, 4))
        except (ValueError, KeyError, TypeError) as e:
            raise cose.Refused("malformed", "the join token is damaged or cut short") from e
        secret, fingerprint = messages.octets(16, 16), messages.octets(32, 32)
        if not (secret(self.secret) and fingerprint(self.fingerprint) and messages.is_id(self.device) and self.address):
            raise cose.Refused("malformed", "the join token is damaged or cut short")
        host, _, port = self.address.rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)


def shown_chain(host: str, port: int) -> list[bytes]:
    """The certificates, DER, that a server shows; nothing is trusted yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), TIMEOUT) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        if hasattr(tls, "get_unverified_chain"):  # Python 3.13
            return tls.get_unverified_chain()
        return [ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in tls._sslobj.get_unverified_chain()]


def trusting(ca: bytes) -> ssl.SSLContext:
    """TLS 1.3 that trusts this CA, DER, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca)
    return context


class Broker:
    """Where the MQTT broker is: host:port for the service's own, mqtts:// or mqtt://
    for somebody else's (4). Without TLS it must be on this machine."""

    def __init__(self, text: str):
        self.own = "://" not in text
        try:
            u = urllib.parse.urlsplit(text if not self.own else "//" + text)
            self.host, port = u.hostname, u.port
        except ValueError as e:
            raise cose.Refused("malformed", f"broker {text!r}: {e}") from e
        if u.scheme not in ("", "mqtt", "mqtts") or u.username is not None or u.path.strip("/") or u.query or u.fragment:
            raise cose.Refused("malformed", f"broker {text!r}: want host:port or mqtts://host:port")
        self.plain = u.scheme == "mqtt"
        self.port = port or {"mqtts": 8883, "mqtt": 1883}.get(u.scheme)
        if not self.host or not self.port:
            raise cose.Refused("malformed", f"broker {text!r}: want host:port or mqtts://host:port")
        if self.plain and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise cose.Refused("malformed", f"broker {text!r}: without TLS it must be on this machine")


def join(token: Token, directory: str) -> None:
    """Makes a key, has it certified, and writes the identity down."""
    ca = next((c for c in shown_chain(token.host, token.port) if hashlib.sha256(c).digest() == token.fingerprint), None)
    if ca is None:
        raise SystemExit(f"{token.address} is not the service that the token names: its CA is another")
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, token.device)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, None)
    body = json.dumps({
        "device": token.device,
        "secret": base64.b64encode(token.secret).decode(),
        "csr": base64.b64encode(csr.public_bytes(Encoding.DER)).decode(),
    })
    # The chain that was looked at means nothing for this connection: it must hold by itself.
    server = http.client.HTTPSConnection(token.host, token.port, timeout=TIMEOUT, context=trusting(ca))
    server.request("POST", "/v1/join", body, {"Content-Type": "application/json"})
    answer = server.getresponse()
    text = answer.read(64 << 10)
    if answer.status != 200:
        try:
            raise SystemExit("cannot join: {code}: {error}".format(**json.loads(text)))
        except (ValueError, KeyError):
            raise SystemExit(f"{token.address} does not answer as a join endpoint does (HTTP {answer.status})") from None
    a = json.loads(text)
    binary = {k: base64.b64decode(a[k]) for k in ("certificate", "ca", "kms_public")}
    if a["device"] != token.device or binary["ca"] != ca or len(binary["kms_public"]) != 32:
        raise SystemExit("cannot join: the answer is not what the token promised")
    Broker(a["broker"])  # before it is written down
    os.makedirs(directory, mode=0o700, exist_ok=True)
    write(directory, "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write(directory, "cert.pem", ssl.DER_cert_to_PEM_cert(binary["certificate"]).encode())
    write(directory, "ca.der", ca)
    write(directory, "identity.json", json.dumps({
        "device": a["device"], "streams": a["streams"], "broker": a["broker"], "kms_public": binary["kms_public"].hex(),
        "broker_ca": a.get("broker_ca", []),
    }).encode())


def write(directory: str, name: str, data: bytes) -> None:
    """Replaces a file in one step, readable by its owner alone."""
    path = os.path.join(directory, name)
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".new", path)


class Identity:
    """What joining brought, as it was written down."""

    def __init__(self, directory: str):
        self.directory = directory
        with open(os.path.join(directory, "identity.json"), encoding="ascii") as f:
            a = json.load(f)
        self.device, self.streams, self.broker = a["device"], a["streams"], Broker(a["broker"])
        self.broker_ca = b"".join(base64.b64decode(c) for c in a.get("broker_ca", []))
        self.kms_public = bytes.fromhex(a["kms_public"])
        with open(os.path.join(directory, "key.pem"), "rb") as f:
            self.key = load_pem_private_key(f.read(), None)

    def tls(self) -> ssl.SSLContext:
        """How the broker is known (4): the service's own by the pinned CA, somebody
        else's by the CAs named for it, or by the system's."""
        if self.broker.own:
            with open(os.path.join(self.directory, "ca.der"), "rb") as f:
                context = trusting(f.read())
        else:
            context = ssl.create_default_context(cadata=self.broker_ca or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(os.path.join(self.directory, "cert.pem"), os.path.join(self.directory, "key.pem"))
        return context

    def high_water(self, stream: str) -> int:
        try:
            with open(os.path.join(self.directory, f"epoch-{stream}"), encoding="ascii") as f:
                return int(f.read())
        except FileNotFoundError:
            return 0

    def raise_high_water(self, stream: str, epoch: int) -> None:
        write(self.directory, f"epoch-{stream}", str(epoch).encode())
