"""The fields of every message and statement, and their rules (SPEC.md sections 6
and 7)."""

import string

from cose import Refused

MAX_TEXT, MAX_PREKEYS, TAG_PREFIX = 512, 4, 4
ID_CHARACTERS = set(string.ascii_letters + string.digits + "-_")


def uint(bits=64, least=0):
    return lambda v: type(v) is int and least <= v < 2**bits


def octets(least=0, most=None):
    return lambda v: isinstance(v, bytes) and least <= len(v) and (most is None or len(v) <= most)


def text(most=MAX_TEXT):
    return lambda v: isinstance(v, str) and len(v.encode()) <= most


def array(of, least=0, most=64):
    return lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(of, v))


def fields(rules, optional=()):
    """Rules by key. A field that is not named in optional must be there."""

    def check(v):
        if not isinstance(v, dict):
            return False
        return all(rule(v[k]) if k in v else k in optional for k, rule in rules.items())

    return check


def is_id(v):
    return isinstance(v, str) and 1 <= len(v) <= 63 and set(v) <= ID_CHARACTERS and v[0] not in "-_"


def is_bool(v):
    return isinstance(v, bool)


def is_session(v):
    return isinstance(v, bytes) and len(v) == 16 and any(v)


digest, index, epoch = octets(32, 32), uint(48), uint(32, 1)
prekeys = array(octets(1), 1, MAX_PREKEYS)
payload = fields({1: lambda v: v in ("mp2t", "rtp"), 2: uint(7), 3: uint(32, 1), 4: text()}, {4})
reject = fields({1: is_session, 2: digest, 3: text(), 4: text(), 5: array(uint(16), 1), 6: uint(32)}, {4, 5, 6})
ingress = fields({
    1: uint(32), 2: uint(), 3: uint(), 4: uint(32), 5: uint(32), 6: uint(), 7: uint(), 8: uint(), 9: uint(),
    10: lambda v: isinstance(v, bytes) and len(v) <= 192 and len(v) % 4 == 0,
}, {6, 7, 8, 9, 10})
encoder = fields({1: uint(), 2: uint(32), 3: lambda v: is_id(v) and len(v) <= 32, 4: is_id}, {3, 4})
policy = fields({1: uint(32), 2: uint(32), 3: is_bool}, {3})

RULES = {
    ("up", "hello"): fields({
        1: is_id, 2: is_id, 3: is_session, 4: array(uint(16), 1), 5: array(uint(16), 1), 6: payload, 7: uint(32), 8: octets(), 9: prekeys, 10: text(), 11: index,
    }, {8, 10, 11}),
    ("down", "challenge"): fields({1: is_session, 2: digest, 3: octets(16, 32)}),
    ("down", "welcome"): fields({
        1: is_session, 2: digest, 3: array(uint(16), 1), 4: array(uint(16), 1), 5: uint(16), 6: uint(16), 7: is_id, 8: uint(32),
        9: array(text(), 1), 10: policy, 11: octets(1),
    }),
    ("down", "grant"): fields({1: is_id, 2: is_session, 3: epoch, 4: text(), 5: uint(32), 6: octets(1), 7: uint()}),
    ("up", "ack"): fields({1: is_id, 2: is_session, 3: epoch, 4: digest, 5: digest, 6: index, 7: prekeys}, {7}),
    ("up", "report"): fields({
        1: is_id, 2: is_session, 3: uint(), 4: epoch, 5: index, 6: index, 7: uint(), 8: uint(), 9: is_bool, 10: octets(), 11: uint(), 12: uint(), 13: ingress, 14: encoder,
    }, {9, 10, 11, 12, 13, 14}),
    ("up", "reject"): reject,
    ("down", "reject"): reject,
    ("up", "refill"): fields({1: is_id, 2: is_session, 3: prekeys}),
    ("down", "refill"): fields({1: is_id, 2: is_session}),
    ("down", "stop"): fields({1: is_session, 2: text(), 3: text()}, {3}),
    ("up", "bye"): fields({1: is_id, 2: is_session, 3: index, 4: text()}, {4}),
}

STATEMENTS = {
    "key": fields({1: is_id, 2: is_session, 3: epoch, 4: uint(16), 5: text(), 6: octets(16, 16), 7: octets(1), 8: uint(32)}),
    "prekey": fields({1: is_id, 2: is_id, 3: is_session, 4: uint(16), 5: octets(1)}),
    "controller": fields({1: text(), 2: octets(32, 32)}),
    "receiver": fields({1: is_id, 2: uint(16), 3: octets(1)}),
    "lease": fields({1: is_id, 2: octets(16, 64), 3: uint(32), 4: array(fields({1: is_id, 2: is_session}), 1)}),
}


def check(direction: str, kind: str, m: dict) -> dict:
    """Gives m if it keeps the rules of its kind."""
    if not RULES[direction, kind](m):
        raise Refused("malformed", f"{kind} with a field that is missing, or not what it should be")
    if kind == "report":
        if m[5] > m[6] or 10 in m and len(m[10]) != TAG_PREFIX * (m[6] - m[5]):
            raise Refused("malformed", "report with a range that falls, or with tags that do not fit it")
    return m


def check_statement(kind: str, s: dict) -> dict:
    if not STATEMENTS[kind](s):
        raise Refused("malformed", f"{kind} statement with a field that is missing, or not what it should be")
    return s
