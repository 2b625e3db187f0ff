"""The settings of one process, as ``watchword.toml`` holds them; nothing here reads a file or the environment."""

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
    """Return seconds: of a number, or of text as ``30s``, ``5m``, ``2h``, ``7d``; ValueError otherwise."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise ValueError('write a duration as "30s", "5m", "2h" or "7d", or a number of seconds')


def parse_size(value: object) -> int:
    """Return bytes: of a whole number, or of text as ``256MiB``, ``512 MB``, ``1.5GB``; ValueError otherwise."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)) and (match[2] or "") in _BYTES:
        return int(float(match[1]) * _BYTES[match[2] or ""])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError('write a size as "256MiB", "512MB" or "1GB", or a number of bytes')


def _listed(value: object) -> object:
    """Let the environment, which has only text, give a list as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("""write a list; in the environment as JSON: '["a", "b"]'""") from None


def check_principal(value: str) -> str:
    """Return a principal that somebody has typed; ValueError for what is none, or a URI with a slip of the pen in it.

    The format lets an agent have any name. But what nearly is a URI is meant to be one, and would match nobody.
    """
    if not is_principal(value):
        raise ValueError("write 1 to 255 bytes of text without control characters, as agent://acme/planner")
    if _LIKE_URI.match(value) and not _URI.fullmatch(value):
        raise ValueError(
            f"{value!r} is no URI: write a scheme, '://' and names parted by one '/', as agent://acme/planner"
        )
    return value


def _without_complaint(check: Callable[[str], object]) -> AfterValidator:
    """Refuse what ``check`` raises a ConfigurationError for; what is written stays as it is."""

    def checked(value: str) -> str:
        try:
            check(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(checked)


def _must(holds: Callable[[Any], bool], advice: str) -> AfterValidator:
    """Refuse what does not hold, and say what to write."""

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
    "write no login into an address, where it would be shown: set user and password in [nats] or [kafka]",
)
_KAFKA: Final = _servers('write the addresses of one or more servers, as ["localhost:9092"]')
_NATS: Final = _servers(
    'write the addresses of one or more servers, as ["nats://localhost:4222"]', "nats", "tls", "ws", "wss"
)
KafkaServers: TypeAlias = Annotated[list[str], _NO_LOGIN, _KAFKA, Listed]
NatsServers: TypeAlias = Annotated[list[str], _NO_LOGIN, _NATS, Listed]


class Section(BaseModel):
    """A table of the file; a name that it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PluggedSection(BaseModel):
    """A table whose further names are the options of the plug-in that it names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """What is meant for the plug-in."""
        return dict(self.model_extra or {})


class SignerSettings(PluggedSection):
    """``[signer]``: where the private key is; ``file`` takes ``key``, and ``key_id`` where it is not the default.

    ``batch`` is how many messages may share a signature; left out, what the key's algorithm has.
    """

    source: str = "file"
    batch: int | None = None


class KeySourceSettings(PluggedSection):
    """``[[keys]]``: one key source; sources are asked in order."""

    source: str


class ReplaySettings(PluggedSection):
    """``[replay]``: where used ids are remembered, in how many bytes here, and how far a shared reader may lag.

    ``state`` is the directory of what this machine alone remembers over restarts; "" for none.
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
    """``[[policy.aliases]]``: a channel on which what was signed for another one is accepted."""

    channel: str
    signed_for: str


class ChannelSettings(Section):
    """``[[policy.channels]]``: settings of the channels that ``match`` covers."""

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
    """``[quarantine]``: where copies of what was not delivered go, and how much of it."""

    kafka: _Topic | None = None
    nats: _Subject | None = None
    rate: _RateText = f"{_LIMITS.rate.count}/s"
    bytes_per_second: int = _LIMITS.bytes_per_second
    max_size: int = _LIMITS.max_size
    header_style: HeaderStyle = HeaderStyle.WATCHWORD

    def to_limits(self) -> QuarantineLimits:
        """Return the limits; ConfigurationError where one is unsafe."""
        return QuarantineLimits(
            rate=Rate.parse(self.rate), bytes_per_second=self.bytes_per_second, max_size=self.max_size
        )


class TlsSettings(Section):
    """``[nats.tls]``, ``[kafka.tls]``: an encrypted connection. Paths of PEM files.

    ``ca`` is whom to trust, by default the system's authorities; ``cert`` and ``key`` are this process's own.
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

    ``inbox_prefix`` is where answers come, for a user who may not subscribe to all of ``_INBOX.>``.
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
            raise ValueError("a login is both user and password: write the other one too")
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
            raise ValueError('a login is mechanism, user and password together: mechanism = "SCRAM-SHA-512"')
        return self


class Address(NamedTuple):
    """A host, by its IP address, and a port."""

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
    """``[telemetry]``: ``prometheus`` serves metrics there, else they go to OpenTelemetry's global meter provider.

    ``public`` allows an address that other machines reach.
    """

    prometheus: Annotated[str, AfterValidator(lambda text: str(Address.parse(text)))] | None = None
    public: bool = False


class OperatorSettings(Section):
    """``[[control.operators]]``: what one operator ``may`` say, and ``over`` whom."""

    principal: Principal
    may: Annotated[list[Verb], Listed]
    over: Annotated[list[_Pattern], Listed]

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.may or not self.over:
            raise ValueError('write what this operator may say and over whom: may = ["contain"], over = ["**"]')
        return self


class ControlSettings(Section):
    """``[control]``: the channel on which operators speak, and who they are.

    After ``max_staleness`` without a sign that nothing is withheld nothing is judged any more; left out, that is never.
    ``presence`` is the channel on which processes announce themselves ``announce_every`` so often; left out, none does.
    """

    channel: str
    presence: str | None = None
    announce_every: _Pace = 10.0
    operators: Annotated[list[OperatorSettings], Listed] = []
    max_staleness: _Patience | None = None

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.operators:
            raise ValueError("nobody may speak there: name an operator in [[control.operators]]")
        names = [one.principal for one in self.operators]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two entries for operator {twice!r}: write one")
        return self

    def to_operators(self) -> tuple[Operator, ...]:
        """Return whose statements count."""
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
        """Return the policy; ConfigurationError where a limit is unsafe or a rule can never apply."""
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
        """Return where copies go; ConfigurationError where that is nowhere, or a cap is unsafe."""
        chosen = self.quarantine
        if chosen is not None:
            if chosen.kafka is None and chosen.nats is None:
                raise ConfigurationError('quarantine: write kafka = "<topic>" or nats = "<subject>"')
            chosen.to_limits()
        return chosen

    def to_control(self) -> Channel | None:
        """Return the control channel; ConfigurationError where it is none, or nothing could be kept of it."""
        chosen = self.control
        if chosen is None:
            return None
        channel = self._channel("channel", chosen.channel)
        if not self.replay.state:
            raise ConfigurationError(
                'control: [replay] state = "" leaves nowhere to keep what operators said, so a restart could roll it'
                " back: name a directory, or leave [control] out"
            )
        return channel

    def to_presence(self) -> Channel | None:
        """Return the channel of announcements; ConfigurationError where it is none, or the control log itself."""
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
        """Return where metrics are served; ConfigurationError where others would read them and nobody said so."""
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
