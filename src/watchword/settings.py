"""The schema of ``watchword.toml``: one pydantic model per table, with its checks and conversions.

Takes values that were parsed already: it reads neither files nor the environment, and builds no key or store.
"""

from __future__ import annotations

import json
import re
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from watchword.control import Operator
from watchword.errors import ConfigurationError, SigningError
from watchword.message import Channel, check_realm, is_principal, is_subject, is_topic
from watchword.policy import Alias, Allow, ChannelRule, Mode, Policy, Rate, check_principal_pattern
from watchword.quarantine import QuarantineLimits
from watchword.quarantine_copy import HeaderStyle
from watchword.statements import Verb

if TYPE_CHECKING:
    from collections.abc import Callable

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?([smhd]?)", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?([KMG]?i?B)?", re.ASCII)
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s\\]+(?:/[^/\s\\]+)*")
_LIKE_URI: Final = re.compile(r"agent[:/\\]|[^/]*:[/\\]|[^/:]*[/\\]{2}|[/\\]", re.IGNORECASE)
_DEFAULTS: Final = Policy()
_LIMITS: Final = QuarantineLimits()
_BYTES: Final = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip
_PORTS: Final = 1 << 16
_SLOWEST: Final = 3600.0
_SERVER: Final = re.compile(
    r"(?:(?P<scheme>[a-z]+)://)?(?:\[[0-9a-f:.]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
_ADDRESS: Final = 'write an IP address and a port, as "127.0.0.1:9464" or "[::1]:9464"'
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> float:
    """Return a duration in seconds, from a number or from text such as ``30s`` or ``5m``; ValueError otherwise."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise ValueError('write a duration as "30s", "5m", "2h" or "7d", or a number of seconds')


def parse_size(value: object) -> int:
    """Return a size in bytes, from an integer or from text such as ``256MiB``, ``1.5 GB``; ValueError otherwise."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)) and (match[2] or "") in _BYTES:
        return int(float(match[1]) * _BYTES[match[2] or ""])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError('write a size as "256MiB", "512MB" or "1GB", or a number of bytes')


def _listed(value: object) -> object:
    """Parse a list from JSON text, the only way to write one in an environment variable."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("""write a list; in the environment as JSON: '["a", "b"]'""") from None


def check_principal(value: str) -> str:
    """Return a principal that was typed by hand; ValueError if it is not a principal, or is a mistyped URI.

    The format allows any name. But a name that is almost a URI was meant as one, and would match no principal.
    """
    if not is_principal(value):
        raise ValueError("write 1 to 255 bytes of text without control characters, as agent://acme/planner")
    if _LIKE_URI.match(value) and not _URI.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a URI: write a scheme, '://' and names separated by one '/', as agent://acme/planner"
        )
    return value


def _without_complaint(check: Callable[[str], object]) -> AfterValidator:
    """Reject values for which ``check`` raises ConfigurationError; the value itself is not converted."""

    def checked(value: str) -> str:
        try:
            check(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(checked)


def _must(holds: Callable[[Any], bool], advice: str) -> AfterValidator:
    """Reject values for which ``holds`` is false, with ``advice`` on what to write."""

    def checked(value: object) -> object:
        if not holds(value):
            raise ValueError(advice)
        return value

    return AfterValidator(checked)


def _servers(advice: str, *schemes: str) -> AfterValidator:
    return _must(lambda value: value and all(_is_server(one, schemes) for one in value), advice)


def _is_server(text: str, schemes: tuple[str, ...]) -> bool:
    match = _SERVER.fullmatch(text)
    if match is None or not (text.isascii() and text.isprintable()):
        return False
    return (match["scheme"] is None or match["scheme"] in schemes) and 0 < int(match["port"] or 1) < _PORTS


Duration: TypeAlias = Annotated[float, BeforeValidator(parse_duration)]
Size: TypeAlias = Annotated[int, BeforeValidator(parse_size)]
Principal: TypeAlias = Annotated[str, AfterValidator(check_principal)]
_Pattern: TypeAlias = Annotated[str, AfterValidator(check_principal_pattern)]
Principals: TypeAlias = Annotated[Principal, AfterValidator(check_principal_pattern)]
"""A principal, or a pattern of principals."""

_RateText: TypeAlias = Annotated[str, _without_complaint(Rate.parse)]
_Topic: TypeAlias = Annotated[str, _must(is_topic, "write a Kafka topic, as agents.quarantine")]
_Subject: TypeAlias = Annotated[str, _must(is_subject, "write a NATS subject without wildcard, as quarantine.agents")]

_Pace: TypeAlias = Annotated[
    Duration, _must(lambda seconds: 1.0 <= seconds <= _SLOWEST, f'write 1 s to {_SLOWEST:g} s, as "10s"')
]
_Patience: TypeAlias = Annotated[
    Duration, _must(lambda seconds: seconds >= 1.0, 'write 1 s or more, as "1h", or leave it out')
]

Listed: Final = BeforeValidator(_listed)
_NO_LOGIN: Final = _must(
    lambda value: not any("@" in one for one in value),
    "write no login into an address, because addresses are logged: set user and password in [nats] or [kafka]",
)
_KAFKA: Final = _servers('write the addresses of one or more servers, as ["localhost:9092"]')
_NATS: Final = _servers(
    'write the addresses of one or more servers, as ["nats://localhost:4222"]', "nats", "tls", "ws", "wss"
)
KafkaServers: TypeAlias = Annotated[list[str], _NO_LOGIN, _KAFKA, Listed]
NatsServers: TypeAlias = Annotated[list[str], _NO_LOGIN, _NATS, Listed]


class Section(BaseModel):
    """A table of the file; an unknown name in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PluggedSection(BaseModel):
    """A table that names a plug-in; its remaining names are that plug-in's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The plug-in's options."""
        return dict(self.model_extra or {})


class SignerSettings(PluggedSection):
    """``[signer]``: where the private key is; ``file`` takes ``key``, and ``key_id`` unless it is the default.

    ``batch`` is how many messages may share a signature; the default depends on the key's algorithm.
    """

    source: str = "file"
    batch: int | None = None


class KeySourceSettings(PluggedSection):
    """``[[keys]]``: one key source; sources are asked in order."""

    source: str


class ReplaySettings(PluggedSection):
    """``[replay]``: the store for used ids, its size in memory, and how far a reader with a shared store may lag.

    ``state`` is the directory for this machine's own state across restarts; "" for none.
    """

    state: str = ".watchword"
    store: str = "memory"
    max_lag: Duration = _DEFAULTS.max_lag
    memory: Size = _DEFAULTS.memory


class AllowSettings(Section):
    """``[[policy.allow]]``: the permission of one principal, or of all that a pattern matches."""

    principal: Principals
    channels: Annotated[list[str], Listed]
    rate: _RateText | None = None
    min_trust: Annotated[float, Field(ge=0, le=1)] = 0.0


class AliasSettings(Section):
    """``[[policy.aliases]]``: a channel that accepts messages signed for another one."""

    channel: str
    signed_for: str


class ChannelSettings(Section):
    """``[[policy.channels]]``: settings for the channels that ``match`` covers."""

    match: str
    mode: Mode


class PolicySettings(Section):
    """``[policy]``: what a message must satisfy."""

    mode: Mode = _DEFAULTS.mode
    max_age: Duration = _DEFAULTS.max_age
    max_skew: Duration = _DEFAULTS.max_skew
    max_hold: Duration = _DEFAULTS.max_hold
    contained: Annotated[list[Principals], Listed] = []
    allow: Annotated[list[AllowSettings], Listed] = []
    aliases: Annotated[list[AliasSettings], Listed] = []
    channels: Annotated[list[ChannelSettings], Listed] = []


class QuarantineSettings(Section):
    """``[quarantine]``: where copies of undelivered messages go, and how many."""

    kafka: _Topic | None = None
    nats: _Subject | None = None
    rate: _RateText = f"{_LIMITS.rate.count}/s"
    bytes_per_second: int = _LIMITS.bytes_per_second
    max_size: int = _LIMITS.max_size
    header_style: HeaderStyle = HeaderStyle.WATCHWORD

    def to_limits(self) -> QuarantineLimits:
        """Return the limits; ConfigurationError if one is unsafe."""
        return QuarantineLimits(
            rate=Rate.parse(self.rate), bytes_per_second=self.bytes_per_second, max_size=self.max_size
        )


class TlsSettings(Section):
    """``[nats.tls]``, ``[kafka.tls]``: an encrypted connection; all values are paths of PEM files.

    ``ca`` holds the trusted authorities, by default the system's; ``cert`` and ``key`` are this process's own.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate goes with its key: write both cert and key, or neither")
        return self


class NatsSettings(Section):
    """``[nats]``: how the commands connect to NATS; at most one login.

    ``inbox_prefix`` is the subject prefix for replies, for a user who may not subscribe to all of ``_INBOX.>``.
    """

    servers: NatsServers = ["nats://localhost:4222"]
    tls: TlsSettings | None = None
    inbox_prefix: _Subject | None = None
    credentials: str | None = None
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("a login needs both user and password: write the missing one too")
        if sum(given is not None for given in (self.credentials, self.user, self.token)) > 1:
            raise ValueError("write one login: credentials, or user and password, or token")
        return self


class KafkaSettings(Section):
    """``[kafka]``: how the commands connect to Kafka; ``mechanism`` is SASL's, and needs ``user`` and ``password``."""

    servers: KafkaServers = ["localhost:9092"]
    tls: TlsSettings | None = None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    user: str | None = None
    password: SecretStr | None = None

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if len({given is None for given in (self.mechanism, self.user, self.password)}) > 1:
            raise ValueError(
                'a login needs mechanism, user and password: write all three, as mechanism = "SCRAM-SHA-512"'
            )
        return self


class Address(NamedTuple):
    """An IP address and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``127.0.0.1:9464`` or ``[::1]:9464``; ValueError otherwise."""
        host, _, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not (port.isascii() and port.isdigit() and int(port) < _PORTS):
            raise ValueError(_ADDRESS)
        try:
            return cls(str(ip_address(host)), int(port))
        except ValueError:
            raise ValueError(_ADDRESS) from None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TelemetrySettings(Section):
    """``[telemetry]``: metrics are served at ``prometheus``, or else go to OpenTelemetry's global meter provider.

    ``public`` allows an address that other machines can reach.
    """

    prometheus: Annotated[str, AfterValidator(lambda text: str(Address.parse(text)))] | None = None
    public: bool = False


class OperatorSettings(Section):
    """``[[control.operators]]``: which statements one operator ``may`` make, and ``over`` which principals."""

    principal: Principal
    may: Annotated[list[Verb], Listed]
    over: Annotated[list[_Pattern], Listed]

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.may or not self.over:
            raise ValueError('write what this operator may state, and over whom: may = ["contain"], over = ["**"]')
        return self


class ControlSettings(Section):
    """``[control]``: the channel of operators' statements, and the operators.

    After ``max_staleness`` without proof that the log is complete, no message is judged; by default there is no limit.
    ``presence`` is the channel on which processes announce themselves every ``announce_every``; by default none do.
    """

    channel: str
    presence: str | None = None
    announce_every: _Pace = 10.0
    operators: Annotated[list[OperatorSettings], Listed] = []
    max_staleness: _Patience | None = None

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.operators:
            raise ValueError("no operators: name one in [[control.operators]]")
        names = [one.principal for one in self.operators]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two entries for operator {twice!r}: write one")
        return self

    def to_operators(self) -> tuple[Operator, ...]:
        """Return the operators whose statements count."""
        return tuple(Operator(one.principal, frozenset(one.may), tuple(one.over)) for one in self.operators)


class Settings(Section):
    """A whole ``watchword.toml``."""

    realm: Annotated[str, _without_complaint(check_realm)]
    principal: Principal | None = None
    signer: SignerSettings | None = None
    keys: Annotated[list[KeySourceSettings], Listed] = []
    policy: PolicySettings = Field(default_factory=PolicySettings)
    replay: ReplaySettings = Field(default_factory=ReplaySettings)
    quarantine: QuarantineSettings | None = None
    nats: NatsSettings | None = None
    kafka: KafkaSettings | None = None
    telemetry: TelemetrySettings | None = None
    control: ControlSettings | None = None

    def to_policy(self) -> Policy:
        """Return the policy; ConfigurationError if a limit is unsafe or a rule can never apply."""
        chosen = self.policy
        for rule in chosen.allow:
            self._check_realms("allow", rule.channels)
        self._check_realms("aliases", [alias.channel for alias in chosen.aliases])
        self._check_realms("channels", [rule.match for rule in chosen.channels])
        return Policy(
            mode=chosen.mode,
            max_age=chosen.max_age,
            max_skew=chosen.max_skew,
            max_hold=chosen.max_hold,
            max_lag=self.replay.max_lag,
            memory=self.replay.memory,
            contained=frozenset(chosen.contained),
            allow=tuple(
                Allow(
                    rule.principal,
                    tuple(rule.channels),
                    None if rule.rate is None else Rate.parse(rule.rate),
                    rule.min_trust,
                )
                for rule in chosen.allow
            ),
            aliases=tuple(Alias(alias.channel, alias.signed_for) for alias in chosen.aliases),
            channels=tuple(ChannelRule(rule.match, rule.mode) for rule in chosen.channels),
        )

    def to_quarantine(self) -> QuarantineSettings | None:
        """Return the quarantine's settings; ConfigurationError if no channel is named, or a limit is unsafe."""
        chosen = self.quarantine
        if chosen is not None:
            if chosen.kafka is None and chosen.nats is None:
                raise ConfigurationError('quarantine: write kafka = "<topic>" or nats = "<subject>"')
            chosen.to_limits()
        return chosen

    def to_control(self) -> Channel | None:
        """Return the control channel; ConfigurationError if it is invalid, or there is no directory for its state."""
        chosen = self.control
        if chosen is None:
            return None
        channel = self._channel("channel", chosen.channel)
        if not self.replay.state:
            raise ConfigurationError(
                'control: [replay] state = "" leaves no directory to store operators\' statements in, so a restart'
                " could roll them back: name a directory, or leave [control] out"
            )
        return channel

    def to_presence(self) -> Channel | None:
        """Return the channel of announcements; ConfigurationError if it is invalid, or is the control log itself."""
        chosen = self.control
        if chosen is None or chosen.presence is None:
            return None
        channel = self._channel("presence", chosen.presence)
        if chosen.presence == chosen.channel:
            raise ConfigurationError(
                "control.presence: the control log is for operators' statements only: write another channel"
            )
        return channel

    def _channel(self, name: str, uri: str) -> Channel:
        try:
            channel = Channel.parse(uri)
            channel.check_signable()
        except (ValueError, SigningError) as error:
            raise ConfigurationError(f"control.{name}: {error}") from None
        if channel.realm != self.realm:
            raise ConfigurationError(f"control.{name}: {uri!r} is not in realm {self.realm!r}")
        return channel

    def to_endpoint(self) -> Address | None:
        """Return where to serve metrics; ConfigurationError if others can reach it and ``public`` is not set."""
        chosen = self.telemetry
        if chosen is None or chosen.prometheus is None:
            return None
        address = Address.parse(chosen.prometheus)
        if not (ip_address(address.host).is_loopback or chosen.public):
            raise ConfigurationError(
                f'telemetry: prometheus = "{address}" shows principals and channels to other machines: write'
                f' "127.0.0.1:{address.port}", or public = true beside it'
            )
        return address

    def _check_realms(self, table: str, channels: list[str]) -> None:
        for uri in channels:
            try:
                realm = Channel.parse(uri).realm
            except ValueError as error:
                raise ConfigurationError(f"policy.{table}: {error}") from None
            if realm != self.realm:
                raise ConfigurationError(f"policy.{table}: {uri!r} is not in this process's realm {self.realm!r}")
