"""The commands and their arguments; their implementations are in separate modules, imported on use."""

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

from watchword import ConfigurationError
from watchword_adapters.cli import OK, WRONG_USE
from watchword_adapters.cli.operator_app import contain, controlled, keyed, release
from watchword_adapters.cli.options import SETTINGS, AsJson, Config, KeyKind

app = typer.Typer(
    name="watchword",
    help="Sign and verify the messages of agents on Kafka and NATS.",
    epilog="Exit codes: 0 success; 1 something was rejected; 2 wrong arguments, settings, files or input; "
    "3 something could not be judged or signed now.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

quarantined = typer.Typer(no_args_is_help=True, help="Look at rejected messages, and verify them again.")
app.add_typer(quarantined, name="quarantine")

app.add_typer(controlled, name="control")
app.add_typer(keyed, name="key")
app.command()(contain)
app.command()(release)

stored = typer.Typer(no_args_is_help=True, help="Make a reader known to a shared replay store.")
app.add_typer(stored, name="store")

ruled = typer.Typer(no_args_is_help=True, help="Ask what the settings allow.")
app.add_typer(ruled, name="policy")

_MARKUP = re.compile(r"(?=\[[a-z#/@][^[]*?])")
"""Matches before what rich takes for markup. Its own ``escape`` does the same, but every command would import it."""


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; ConfigurationError for wrong arguments, in one line."""
    command = typer.main.get_command(app)
    _take_literally(command)
    try:
        code = command.main(list(arguments), prog_name="watchword", standalone_mode=False)
    except typer.Abort:  # typer's form of an interrupt
        raise KeyboardInterrupt from None
    except Exception as error:
        say = getattr(error, "format_message", None)  # errors of the parser, whose class typer does not export
        if say is None:
            raise
        told: str = say().rstrip(".")
        context: typer.Context | None = getattr(error, "ctx", None)
        if not told:  # no command: the help was shown
            return WRONG_USE
        where = "watchword" if context is None else context.command_path
        raise ConfigurationError(f"{told}; see '{where} --help'") from None
    return code if isinstance(code, int) else OK


def _take_literally(command: Any) -> None:
    """Show help texts as written: rich would take ``[control]`` for markup and hide it."""
    for one in (command, *command.params):
        for name in ("help", "short_help", "epilog"):
            if text := getattr(one, name, None):
                setattr(one, name, _MARKUP.sub(r"\\", text))
    for below in getattr(command, "commands", {}).values():
        _take_literally(below)


class Bus(StrEnum):
    """The bus of a demo or a quarantine."""

    NATS = "nats"
    KAFKA = "kafka"


OnBus = Annotated[Bus | None, typer.Option("--bus", help="Its bus, if the settings name more than one.")]
Servers = Annotated[
    str | None,
    typer.Option(
        "--servers", metavar="ADDRESSES", help="Such as nats://a:4222,nats://b:4222 or a:9092,b:9092; no TLS, no login."
    ),
]
Place = Annotated[
    str | None, typer.Option("--from", metavar="NAME", help="Topic or subject; by default that of the settings.")
]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Latest copies (of each partition) to read.")]


@app.callback(invoke_without_command=True)
def _watchword(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:  # noqa: FBT002 - an option
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed: redirect it, for instance to /dev/null")
    # Names in other scripts must not stop a run whose output goes to an ASCII file.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # always a text file
    if version:
        from importlib.metadata import version as version_of  # noqa: PLC0415 - only here

        sys.stdout.write(f"watchword {version_of('watchword')}\n")
        raise typer.Exit


@app.command()
def keygen(
    principal: Annotated[str, typer.Option("--principal", "-p", help="Who will sign, such as agent://acme/planner.")],
    algorithm: Annotated[KeyKind, typer.Option(help="Kind of key.")] = KeyKind.ED25519,
    private: Annotated[Path | None, typer.Option(metavar="FILE", help="Private key; default NAME.pem.")] = None,
    public: Annotated[Path | None, typer.Option(metavar="FILE", help="Public key; default NAME.jwk.")] = None,
    *,
    passphrase_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Encrypt the private key with this variable's value.")
    ] = None,
    passphrase_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Encrypt the private key with this file's content.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key pair: a private PEM that only you can read, and a public JWK.

    NAME is the part of the principal after the last '/'; if another team's files have that name, with the team before
    it. Existing files are never overwritten.
    """
    from watchword_adapters.cli.keygen import encrypting, make_pair  # noqa: PLC0415 - quick start

    passphrase = encrypting(passphrase_env, passphrase_file)
    sys.stdout.write(make_pair(principal, algorithm.name, private, public, passphrase=passphrase, as_json=as_json))


@app.command()
def init(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="The settings; default watchword.toml.")
    ] = None,
    realm: Annotated[str | None, typer.Option("--realm", "-r", help="The cluster or account, such as prod.")] = None,
    principal: Annotated[
        str | None, typer.Option("--principal", "-p", help="Who the agent is, such as agent://acme/planner.")
    ] = None,
    bus: Annotated[Bus | None, typer.Option("--bus", help="Create a first example for it: first.py.")] = None,
    servers: Annotated[
        str | None,
        typer.Option("--servers", metavar="ADDRESSES", help="Your broker; by default the example starts one."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Create what an agent needs to start without loss: settings, key, key set, and the journal of core NATS readers.

    Only missing files are created, so it is safe to run twice. If there are settings, only the journal is created; for
    readers that have never run, or have been stopped. A second agent in a directory gets settings under its own name.
    With --bus it also creates a program to run at once, first.py, and the settings of its reader, reader.toml.
    """
    from watchword_adapters.cli.init import Wanted, run_init  # noqa: PLC0415 - quick start

    sys.stdout.write(run_init(Wanted(config, realm, principal, bus, servers), as_json=as_json))


@app.command()
def jwks(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JWK, JWK Set and PEM files, or directories.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the set here.")] = None,
) -> None:
    """Collect public keys into one JWK Set; private keys, and a key with two owners, are refused.

    An existing output file is replaced atomically, so that half a set is never read.
    """
    from watchword_adapters.cli.jwks import collect, replace_file  # noqa: PLC0415 - quick start

    text = collect(files)
    if output is None:
        sys.stdout.write(text)
    else:
        replace_file(output, text)


@app.command()
def sign(config: Config = SETTINGS) -> None:
    """Sign messages: one JSON object per line on standard input; the same with its envelope on standard output.

    Besides the fields of a message, a line may have "recipient" (a principal), "expires_at" (seconds) and
    "in_reply_to" (the id of a request).
    """
    from watchword_adapters.cli.lines import run_sign  # noqa: PLC0415 - quick start

    raise typer.Exit(run_sign(config))


@app.command()
def verify(config: Config = SETTINGS) -> None:
    """Verify messages: one JSON object per line on standard input, one verdict per line on standard output.

    All lines share one replay window, which never expires. Exit code 1 if anything was rejected, 3 if anything could
    not be judged.
    """
    from watchword_adapters.cli.lines import run_verify  # noqa: PLC0415 - quick start

    raise typer.Exit(run_verify(config))


@app.command()
def tail(
    channel: Annotated[
        str,
        typer.Argument(metavar="CHANNEL", help="Such as kafka://prod/tasks or nats://prod/tasks.>, in this realm."),
    ],
    *,
    config: Config = SETTINGS,
    servers: Servers = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="NATS: read the messages of this stream.")
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Include existing messages, not only new ones.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Print verdicts, as 'verify' does.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Show who, verdict and reason as a live table.")] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after this many messages.")] = None,
) -> None:
    """Follow a channel: one JSON object per line, in the format that 'verify' reads.

    Nothing is committed or acknowledged, and no other group or consumer is affected. Exit code 1 if anything was
    rejected, 3 if anything could not be judged or the broker does not respond.
    """
    from watchword_adapters.cli.tail import Tail, run_tail  # noqa: PLC0415 - quick start

    raise typer.Exit(run_tail(Tail(channel, config, servers, stream, from_start, verify, live, count)))


@app.command()
def who(
    *,
    config: Config = SETTINGS,
    servers: Servers = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Such as 30s or 24h; default: three announcement intervals."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which processes announced themselves on the presence channel, and what they report of others.

    Each announcement is verified like any message. Reports are other agents' statements, and change no verdict. Exit
    code 3 if something could not be judged, or broker or control log do not respond.
    """
    from watchword_adapters.cli.who import Asked, run_who  # noqa: PLC0415 - quick start

    raise typer.Exit(run_who(Asked(config, servers, since, as_json)))


@app.command()
def inspect(
    envelope: Annotated[
        str | None, typer.Argument(help="The header's value (base64url) or a message as JSON; default: standard input.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Explain an envelope field by field. Nothing is verified: anyone may have written it.

    Exit code 1 if it is malformed.
    """
    from watchword_adapters.cli.inspect import run_inspect  # noqa: PLC0415 - quick start

    raise typer.Exit(run_inspect(envelope, as_json=as_json))


@app.command()
def demo(
    bus: Annotated[Bus, typer.Option(help="The bus to use.")] = Bus.NATS,
    servers: Annotated[
        str | None, typer.Option("--servers", metavar="ADDRESS", help="Your own broker; by default one is started.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Run agents and an attacker on one bus, first without Watchword and then with it.

    A planner asks a cloud controller to start instances; the attacker tries what needs no key. Exit code 1 if an attack
    reached a handler or an honest message was lost.
    """
    if find_spec("watchword_adapters.demo") is None:
        raise ConfigurationError("the demo comes with the source only: clone it, and run make demo")
    from watchword_adapters.cli.demo import run_demo  # noqa: PLC0415 - quick start

    raise typer.Exit(run_demo(bus.value, servers=servers, as_json=as_json))


@app.command()
def bench(
    *,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="PART",
            help="core, peers, buses, memory, stores, scaling, starts or ready; may be repeated.",
        ),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="A quick run that shows that it works; no measurements.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="For bench.json and plots; default build/reports."),
    ] = None,
    kafka: Annotated[str | None, typer.Option(metavar="ADDRESS", help="A Kafka broker, e.g. localhost:9092.")] = None,
    nats: Annotated[str | None, typer.Option(metavar="URL", help="A NATS server with JetStream.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="A Redis or Valkey, for the stores.")] = None,
) -> None:
    """Measure what signing and verifying cost here, compared with plain clients and other ways to sign.

    Without --part it measures all but ready, which takes minutes.

    Brokers can also be set by WATCHWORD_BENCH_KAFKA, WATCHWORD_BENCH_NATS and WATCHWORD_BENCH_REDIS; they are filled
    with test data, so use none that is in production. A checkout starts its own. A part that is measured again replaces
    its figures in bench.json, and leaves the others.
    """
    from watchword_adapters.cli.bench import run_bench  # noqa: PLC0415 - quick start

    addresses = {"kafka": kafka, "nats": nats, "redis": redis}
    run_bench(parts or (), small=small, output=output, addresses=addresses)


@ruled.command("check")
def check_policy(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="Who publishes, such as agent://acme/planner.")],
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="Where, such as kafka://prod/tasks or nats://prod/tasks.scale.")
    ],
    *,
    config: Config = SETTINGS,
    as_json: AsJson = False,
) -> None:
    """Print whether a principal may publish on a channel, by which rule, at which rate, and whether it is contained.

    It reads only the settings, and needs neither keys nor a broker. Exit code 0 if it may publish, 1 if it may not.
    """
    from watchword_adapters.cli.policy import run_check  # noqa: PLC0415 - quick start

    raise typer.Exit(run_check(principal, channel, config, as_json=as_json))


@quarantined.command("list")
def list_quarantine(
    *,
    config: Config = SETTINGS,
    bus: OnBus = None,
    servers: Servers = None,
    place: Place = None,
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """List copies: their number per reason, and the latest ones, one per row. Nothing in them is verified."""
    from watchword_adapters.cli.quarantine import Source, run_list  # noqa: PLC0415 - quick start

    raise typer.Exit(run_list(Source(config, bus, servers, place, limit), as_json=as_json))


@quarantined.command("show")
def show_quarantine(
    identity: Annotated[str, typer.Argument(metavar="ID", help="A copy's id, as shown by 'list'.")],
    *,
    config: Config = SETTINGS,
    bus: OnBus = None,
    servers: Servers = None,
    place: Place = None,
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """Show one copy in full. Nothing in it is verified: anyone who can write there may have forged it."""
    from watchword_adapters.cli.quarantine import Source, run_show  # noqa: PLC0415 - quick start

    raise typer.Exit(run_show(identity, Source(config, bus, servers, place, limit), as_json=as_json))


@quarantined.command("redrive")
def redrive_quarantine(
    identities: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Copies to verify, by id.")] = None,
    *,
    config: Config = SETTINGS,
    bus: OnBus = None,
    servers: Servers = None,
    place: Place = None,
    limit: Limit = 1000,
    reason: Annotated[list[str] | None, typer.Option(help="Only copies with this reason; may be repeated.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only of this channel (URI); may be repeated.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All copies, instead of ids.")] = False,
) -> None:
    """Verify the messages that copies point at again: one JSON verdict per line, with the value if it is verified.

    Originals are read at their positions; if one is gone, the copy is judged at the present time. Nothing is
    published. Exit code 1 if anything was rejected, 3 if anything could not be judged.
    """
    from watchword_adapters.cli.quarantine import Source, run_redrive  # noqa: PLC0415 - quick start

    source = Source(config, bus, servers, place, limit)
    raise typer.Exit(run_redrive(source, identities, reasons=reason, channels=channel, everything=everything))


@stored.command("init")
def init_store(
    reader: Annotated[
        str, typer.Argument(metavar="READER", help="Such as kafka:GROUP, js:STREAM:DURABLE, queue:Q:SUBJECT.")
    ],
    *,
    config: Config = SETTINGS,
    servers: Servers = None,
    accept_backlog: Annotated[
        bool, typer.Option("--accept-backlog", help="Accept what is in its log now, once.")
    ] = False,
    nothing_handled_before: Annotated[
        bool, typer.Option("--nothing-handled-before", help="It has never read, so nothing in its log is a copy.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a reader known to the shared replay store; needed for a durable or group that has read, in a new store.

    With --accept-backlog, copies that are already in the backlog are accepted once, too. A reader that is known is not
    changed without one of both options. Readers of core NATS need neither: run this before their first start.
    """
    from watchword_adapters.cli.store import Word, run_init  # noqa: PLC0415 - quick start

    word = Word(reader, config, servers, accept_backlog, nothing_handled_before)
    raise typer.Exit(run_init(word, as_json=as_json))
