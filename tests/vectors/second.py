"""A second implementation of docs/spec.md's verifier: written from the text, slow, on cbor2 and cryptography alone.

It shares no code with the product, so that what both accept is what the specification says.
"""

import base64
import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
LIMITS = {-48: (2420, 6453), -49: (3309, 7342)}
CHECK_5 = {"unknown_key", "wrong_principal", "key_not_valid", "key_revoked"}
TRACE = {"traceparent", "tracestate"}


class Refused(Exception):  # noqa: N818 - a verdict
    """A message is rejected, for this reason."""


class Second:
    """Judges the messages of one vector."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self.vector = vector
        self.policy = {"max_age": 300, "max_skew": 5, "contained": [], "allow": []} | vector.get("policy", {})
        self.context = {"requests": [], "only_replies": False, "consumer": None} | vector.get("expected_context", {})
        self.keys = vector["keys"]["keys"]
        self.now = vector["now"]
        self.seen: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self.undetermined: dict[bytes, tuple[Any, Any]] = {}
        self.highest: dict[str, float] = {}
        self.raised: dict[tuple[Any, ...], int] = {}
        self.spent: dict[tuple[int, str, str], tuple[float, float]] = {}

    def judge(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the verdict as JSON members."""
        try:
            return {"verdict": "verified", **self._verify(message)}
        except Refused as refused:
            return {"verdict": "rejected", "reason": str(refused)}

    def _verify(self, message: dict[str, Any]) -> dict[str, Any]:
        crowd = [("", b"")] * self.vector.get("empty_headers", 0)
        headers = crowd + [(name, _bytes(value)) for name, value in message["headers"]]
        claims, entry, protected, unprotected, signature = _parse(_envelope(headers))
        request = self._addressed(message, claims)
        earliest, latest = self._appended(message)
        reference = min(max(claims[6], earliest), latest)
        ahead = self._fresh(claims, earliest, latest)
        try:
            key = self._key(claims, protected, reference)
            _signed(key, entry, protected, unprotected, signature)
            self._unaltered(message, headers, claims)
        except Refused as refused:
            if str(refused) in CHECK_5:
                self.undetermined.setdefault(sha256(entry).digest(), _place(message))
            if ahead:
                raise Refused("from_future") from None
            raise
        if ahead:
            self.undetermined.setdefault(sha256(entry).digest(), _place(message))
            raise Refused("from_future")
        redelivered = self._seen_before(message, claims, entry, earliest, key=key)
        self._permitted(message, claims, request, reference, redelivered=redelivered)
        return {
            "principal": key["principal"],
            "key_id": key["kid"],
            "id": claims[7].hex(),
            "redelivered": redelivered,
        }

    def _addressed(self, message: dict[str, Any], claims: dict[Any, Any]) -> dict[str, Any] | None:
        scheme, realm = message["channel"].split("/")[0], message["channel"].split("/")[2]
        if claims["c"] != message["channel"] or realm != self.vector["realm"]:
            raise Refused("wrong_channel")
        if not ("p" not in claims and self.vector.get("shared_replay")) and (
            claims.get("p") != message["partition"] or (scheme == "kafka:" and "p" not in claims)
        ):
            raise Refused("wrong_partition")
        in_stream = scheme == "nats:" and "offset" in message
        if claims.get("r", "").startswith("$"):
            raise Refused("wrong_reply_to")
        if "r" in claims and not in_stream and claims["r"] != message["reply_to"]:
            raise Refused("wrong_reply_to")
        if claims.get(3, self.vector["principal"]) != self.vector["principal"]:
            raise Refused("wrong_recipient")
        pending = [known for known in self.context["requests"] if known["id"] == claims.get("q", b"").hex()]
        if not pending and ("q" in claims or self.context["only_replies"]):
            raise Refused("wrong_request")
        if self.context["consumer"] is not None and message.get("delivered_by") != self.context["consumer"]:
            raise Refused("wrong_delivery")
        return pending[0] if pending else None

    def _appended(self, message: dict[str, Any]) -> tuple[float, float]:
        earliest, latest = message.get("appended_between", (self.now, self.now))
        if "appended_at" in message:
            earliest = latest = message["appended_at"]
        return float("-inf") if earliest is None else earliest, latest

    def _fresh(self, claims: dict[Any, Any], earliest: float, latest: float) -> bool:
        """Return whether it is ahead, but may not be when it is read again."""
        max_age, max_skew = self.policy["max_age"], self.policy["max_skew"]
        if claims[6] < earliest - max_age - max_skew:
            raise Refused("stale")
        if claims[6] > latest + max_skew:
            if earliest == latest or claims[6] > latest + max_age + 2 * max_skew:
                raise Refused("from_future")
            return True
        if 4 in claims and self.now >= claims[4]:
            raise Refused("expired")
        return False

    def _key(self, claims: dict[Any, Any], protected: bytes, reference: float) -> dict[str, Any]:
        kid = cbor2.loads(protected)[4]
        known = [key for key in self.keys if key["kid"].encode() == kid]
        if not known:
            raise Refused("unknown_key")
        own = [key for key in known if key["principal"] == claims[1]]
        if not own:
            raise Refused("wrong_principal")
        key: dict[str, Any] = own[0]
        if not key.get("nbf", reference) <= reference or reference >= key.get("exp", reference + 1):
            raise Refused("key_not_valid")
        if self.now >= key.get("revoked", self.now + 1):
            raise Refused("key_revoked")
        return key

    def _unaltered(self, message: dict[str, Any], headers: list[Any], claims: dict[Any, Any]) -> None:
        value, key, covered = _bytes(message["value"]), _bytes(message["key"]), claims.get("h", [])
        if claims.get("v") != (None if value is None else sha256(value).digest()):
            raise Refused("altered")
        pairs = [[name, content] for name, content in headers if name in covered]
        digest = sha256(_canonical([key, pairs])).digest() if covered or key is not None else None
        if claims.get("m") != digest:
            raise Refused("altered")
        if abs(message.get("created_at", claims[6]) - claims[6]) > self.policy["max_skew"]:
            raise Refused("altered")
        if message["channel"].startswith("nats:") and "Nats-Msg-Id" not in covered:
            for name, content in headers:
                if name == "Nats-Msg-Id" and content != claims[7].hex().encode():
                    raise Refused("altered")

    def _seen_before(
        self, message: dict[str, Any], claims: dict[Any, Any], entry: bytes, earliest: float, *, key: dict[str, Any]
    ) -> bool:
        log, own = f"{message['channel']} {message['partition']}", f"{message['channel']} {claims[1]}"
        unstamped = "appended_between" in message and "appended_at" not in message
        self.highest[log] = max(earliest, self.highest.get(log, earliest))
        floors = [self.highest[log], self.highest.get(own, earliest)]
        floor = max(floors) - self.policy["max_age"] - self.policy["max_skew"]
        if claims[6] < floor:
            raise Refused("stale")
        place = _place(message)
        use = (log, claims[1], claims[7], claims[6])
        if use in self.seen:
            if "offset" in message and self.seen[use] == (place, sha256(entry).digest()):
                return True
            raise Refused("replayed")
        if self.undetermined.get(sha256(entry).digest(), place) != place:
            raise Refused("replayed")
        held = sum(known[:2] == use[:2] and known[3] >= floor for known in self.seen)
        signer = (log, claims[1], key["kid"])
        if held >= self.vector.get("ids_per_principal", 1000):
            self.raised[signer] = max(claims[6], self.raised.get(signer, -1))
            raise Refused("over_quota")
        if claims[6] <= self.raised.get(signer, -1) and sha256(entry).digest() not in self.undetermined:
            raise Refused("stale")
        self.seen[use] = (place, sha256(entry).digest())
        if unstamped:
            self.highest[own] = max(claims[6], self.highest.get(own, claims[6]))
        return False

    def _permitted(
        self,
        message: dict[str, Any],
        claims: dict[Any, Any],
        request: dict[str, Any] | None,
        reference: float,
        *,
        redelivered: bool,
    ) -> None:
        channel = request["channel"] if request else message["channel"]
        addressee = request["recipient"] if request else None
        rules = sorted(
            (_said_of(rule["principal"], "/", "**"), _said(each), number)
            for number, rule in enumerate(self.policy["allow"])
            if _who(rule["principal"]).fullmatch(claims[1])
            for each in rule["channels"]
            if _pattern(each).fullmatch(channel)
        )
        rule = self.policy["allow"][rules[0][-1]] if rules else {}
        if (claims[1] != addressee) if addressee else (self.policy["allow"] and not rules):
            raise Refused("not_permitted")
        if "rate" in rule and not redelivered:
            count, unit = rule["rate"].split("/")
            full, period = int(count), {"s": 1, "m": 60, "h": 3600}[unit]
            log = f"{message['channel']} {message['partition']}"
            bucket = (rules[0][-1], claims[1], log)
            tokens, last = self.spent.get(bucket, (full, reference))
            tokens = min(full, tokens + max(0, reference - last) * full / period)
            self.spent[bucket] = (tokens - (tokens >= 1), max(last, reference))
            if tokens < 1:
                raise Refused("rate_limited")
        if any(_who(each).fullmatch(claims[1]) for each in self.policy["contained"]):
            raise Refused("contained")


def _place(message: dict[str, Any]) -> tuple[Any, Any]:
    return message.get("offset"), message.get("appended_at")


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)


def _who(pattern: str) -> re.Pattern[str]:
    *parts, last = [{"*": "[^/]*"}.get(part, re.escape(part)) for part in pattern.split("/")]
    return re.compile("/".join([*parts, ".*" if last == re.escape("**") else last]))


def _said_of(pattern: str, separator: str, rest: str) -> list[int]:
    return [{"*": 1, rest: 2}.get(token, 0) for token in pattern.split(separator)]


def _said(uri: str) -> list[int]:
    if uri.startswith("nats"):
        return _said_of(uri.split("/", 3)[3], ".", ">")
    return [-len(uri) if uri.endswith("*") else -1000]


def _pattern(uri: str) -> re.Pattern[str]:
    if uri.startswith("kafka"):
        return re.compile(re.escape(uri.removesuffix("*")) + (".*" if uri.endswith("*") else ""))
    tail = uri.endswith(("/>", ".>"))
    tokens = re.split(r"(?<=[/.])", uri.removesuffix(">"))
    body = "".join(r"[^.]+" + re.escape(token[1:]) if token in {"*", "*."} else re.escape(token) for token in tokens)
    return re.compile(body + (".+" if tail else ""))


def _envelope(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    _need(len(headers) <= 1024)
    found = [value for name, value in headers if name.lower() == "watchword"]
    if not found:
        raise Refused("unsigned")
    size = sum(len(name.encode()) + len(value or b"") for name, value in headers)
    if len(found) > 1 or found[0] is None or size > 65536 or len(found[0]) > 9790:
        raise Refused("malformed")
    return found[0]


def _canonical(value: Any) -> bytes:
    """Write deterministic CBOR: RFC 8949 section 4.2.1."""
    if isinstance(value, list):
        return _length(4, len(value)) + b"".join(map(_canonical, value))
    if isinstance(value, dict):
        pairs = sorted((_canonical(key), _canonical(content)) for key, content in value.items())
        return _length(5, len(value)) + b"".join(key + content for key, content in pairs)
    if isinstance(value, str):
        return _length(3, len(value.encode())) + value.encode()
    return cbor2.dumps(value)


def _length(major: int, number: int) -> bytes:
    head = bytearray(cbor2.dumps(number))
    head[0] |= major << 5
    return bytes(head)


def _strict(data: bytes) -> Any:
    """Read deterministic CBOR of the kinds that the specification names."""
    try:
        value = cbor2.loads(data)
    except Exception:  # noqa: BLE001 - the library may raise anything at garbage
        raise Refused("malformed") from None
    if not _plain(value) or _canonical(value) != data:
        raise Refused("malformed")
    return value


def _plain(value: Any) -> bool:
    if type(value) is list:
        return all(map(_plain, value))
    if type(value) is dict:
        return all(type(key) in {int, str} and _plain(content) for key, content in value.items())
    return value is None or type(value) in {int, bytes, str}


def _need(condition: object) -> None:
    if not condition:
        raise Refused("malformed")


def _parse(header: bytes) -> tuple[dict[Any, Any], bytes, bytes, dict[Any, Any], bytes]:
    _need(re.fullmatch(rb"[A-Za-z0-9_-]*", header) and len(header) % 4 != 1)
    raw = base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4))
    _need(base64.urlsafe_b64encode(raw).rstrip(b"=") == header)
    whole = _strict(raw)
    _need(type(whole) is list and len(whole) == 3 and whole[0] == 1)
    _, entry, proof = whole
    _need(type(entry) is bytes and type(proof) is list and len(proof) == 4)
    protected, unprotected, payload, signature = proof
    _need(type(protected) is bytes and type(unprotected) is dict and payload is None)
    fields = _strict(protected)
    _need(type(fields) is dict and {1, 4} <= fields.keys() <= {1, 4, 395})
    _need(type(fields[1]) is int and type(fields[4]) is bytes and 1 <= len(fields[4]) <= 128)
    longest, most = LIMITS.get(fields[1], (128, 4096))
    _need(type(signature) is bytes and len(signature) <= longest and len(raw) <= most)
    if 395 in fields:
        _need(fields[395] == 1)
        _inclusion(unprotected)
    else:
        _need(unprotected == {})
    claims = _strict(entry)
    _claims(claims)
    return claims, entry, protected, unprotected, signature


def _inclusion(unprotected: dict[Any, Any]) -> tuple[int, int, list[bytes]]:
    _need(unprotected.keys() == {396} and type(unprotected[396]) is dict and unprotected[396].keys() == {-1})
    proofs = unprotected[396][-1]
    _need(type(proofs) is list and len(proofs) == 1 and type(proofs[0]) is bytes)
    proof = _strict(proofs[0])
    _need(type(proof) is list and len(proof) == 3)
    size, index, path = proof
    _need(type(size) is int and 2 <= size <= 4096 and type(index) is int and 0 <= index < size)
    _need(type(path) is list and 1 <= len(path) <= 12)
    _need(all(type(node) is bytes and len(node) == 32 for node in path))
    return size, index, path


def _claims(claims: Any) -> None:
    label: Any
    _need(type(claims) is dict and {1, 6, 7, "c"} <= claims.keys() <= {1, 3, 4, 6, 7, *"chmpqrv"})
    for label in (1, 3):
        name = claims.get(label, "x")
        _need(type(name) is str and 1 <= len(name.encode()) <= 255 and name.strip(" ") == name)
        _need(not re.search(r"[\x00-\x1f\x7f]", name))
    for label, limit in ((4, 1 << 33), (6, 1 << 33), ("p", 1 << 31)):
        _need(type(claims.get(label, 0)) is int and 0 <= claims.get(label, 0) < limit)
    for label, size in ((7, 16), ("q", 16), ("m", 32), ("v", 32)):
        _need(type(claims.get(label, b"")) is bytes and len(claims.get(label, bytes(size))) == size)
    for label in ("c", "r"):
        _need(type(claims.get(label, "x")) is str and claims.get(label, "x"))
    if "h" in claims:
        names = claims["h"]
        _need(
            type(names) is list
            and 1 <= len(names) <= 1024
            and all(type(name) is str for name in names)
            and "m" in claims
        )
        encoded = [name.encode() for name in names]
        _need(encoded == sorted(set(encoded)) and not any(name.lower() == "watchword" for name in names))


def _signed(key: dict[str, Any], entry: bytes, protected: bytes, unprotected: dict[Any, Any], signature: bytes) -> None:
    size, payload = 0, entry
    if unprotected:
        size, index, path = _inclusion(unprotected)
        payload = _root(entry, index, size, path)
    signed = _canonical(["Signature1", protected, _canonical(["watchword/1", size]), payload])
    algorithm = cbor2.loads(protected)[1]
    if len(signature) != LIMITS.get(algorithm, (64, 0))[0]:
        raise Refused("bad_signature")
    try:
        match key["alg"] if key["kty"] == "AKP" else key["crv"], algorithm:
            case "ML-DSA-44", -48:
                mldsa.MLDSA44PublicKey.from_public_bytes(_coordinate(key["pub"])).verify(signature, signed)
            case "ML-DSA-65", -49:
                mldsa.MLDSA65PublicKey.from_public_bytes(_coordinate(key["pub"])).verify(signature, signed)
            case "Ed25519", -19:
                ed25519.Ed25519PublicKey.from_public_bytes(_coordinate(key["x"])).verify(signature, signed)
            case "P-256", -9:
                r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
                if s > P256_ORDER // 2:
                    raise Refused("bad_signature")
                x, y = int.from_bytes(_coordinate(key["x"])), int.from_bytes(_coordinate(key["y"]))
                public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
                public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
            case _:
                raise Refused("bad_signature")
    except InvalidSignature:
        raise Refused("bad_signature") from None


def _coordinate(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def _root(entry: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Walk down the tree as RFC 9162 section 2.1.3.1 builds the path, its last node first."""
    if size == 1:
        if path:
            raise Refused("bad_signature")
        return sha256(b"\x00" + entry).digest()
    if not path:
        raise Refused("bad_signature")
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return sha256(b"\x01" + _root(entry, index, split, path[:-1]) + path[-1]).digest()
    return sha256(b"\x01" + path[-1] + _root(entry, index - split, size - split, path[:-1])).digest()


def judge(vector: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the verdicts on all messages of a vector."""
    second = Second(json.loads(json.dumps(vector)))
    return [second.judge(message) for message in vector["messages"]]
