"""The commands of operators and their arguments; their implementations are imported on use."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from watchword_adapters.cli.options import SETTINGS, AsJson, Config, KeyKind, Yes

controlled = typer.Typer(no_args_is_help=True, help="Create, read and attend the control log.")
keyed = typer.Typer(
    no_args_is_help=True,
    help="Show and create an agent's own key; publish, list, revoke and rotate keys on the control log.",
)

_KEY_WITH_HYPHEN = re.compile(r"-[\w-]{15}|-[\w-]{42}", re.ASCII)

Who = Annotated[
    str, typer.Argument(metavar="WHO", help="A principal; '*' matches one part, a final '**' all that follows.")
]


def contain(
    who: Who,
    *,
    config: Config = SETTINGS,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Such as 30m, 1h or 7d; default: for good.")
    ] = None,
    why: Annotated[
        str, typer.Option("--why", metavar="TICKET", help="All processes can read it, contained ones too.")
    ] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stop the delivery of everything that an agent signs, on any bus, within a second.

    A pattern that ends with '**' matches many agents, and must be confirmed.
    """
    from watchword_adapters.cli.control import run_contain  # noqa: PLC0415 - quick start

    raise typer.Exit(run_contain(who, config, lasting, why, yes=yes, as_json=as_json))


def release(
    who: Who,
    *,
    config: Config = SETTINGS,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Although the log has none: it was recreated, and readers still obey one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End the containment of exactly this text, and list those still in force. Exit code 1 if there are any."""
    from watchword_adapters.cli.control import run_release  # noqa: PLC0415 - quick start

    raise typer.Exit(run_release(who, config, anyway=anyway, as_json=as_json))


@controlled.command("init")
def init_log(*, config: Config = SETTINGS, as_json: AsJson = False) -> None:
    """Create the control log that [control] names, or check the existing one. Safe to run twice."""
    from watchword_adapters.cli.control import run_init  # noqa: PLC0415 - quick start

    raise typer.Exit(run_init(config, as_json=as_json))


@controlled.command("log")
def show_log(
    *,
    config: Config = SETTINGS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new entries.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the control log: each statement, its operator, and why it does not count. Exit code 1 if any does not."""
    from watchword_adapters.cli.control import run_log  # noqa: PLC0415 - quick start

    raise typer.Exit(run_log(config, follow=follow, as_json=as_json))


@controlled.command("adopt")
def adopt(
    operator: Annotated[str, typer.Argument(metavar="OPERATOR", help="Whose statements you repeat.")],
    *,
    config: Config = SETTINGS,
    without: Annotated[
        list[int] | None,
        typer.Option("--without", metavar="POSITION", help="Omit the statement at this position; may be repeated."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Repeat another operator's statements in your own name, before that operator's key is revoked.

    They are shown first, with their positions in the log: a thief of the key may have made some of them.
    """
    from watchword_adapters.cli.control import run_adopt  # noqa: PLC0415 - quick start

    raise typer.Exit(run_adopt(operator, config, without or (), yes=yes, as_json=as_json))


@controlled.command("attend")
def attend(
    *,
    config: Config = SETTINGS,
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="Time between two heartbeats.")] = "10s",
) -> None:
    """Publish heads at intervals, which show that nothing is withheld; needs a key that may only say 'head'."""
    from watchword_adapters.cli.control import run_attend  # noqa: PLC0415 - quick start

    raise typer.Exit(run_attend(config, every))


Otherwise = Annotated[
    list[str] | None,
    typer.Option(
        "--with", metavar="NAME=VALUE", help="Override a value of [signer], such as version=2; may be repeated."
    ),
]

Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the JWK here; files are never overwritten.")
]


@keyed.command("public")
def show_public(*, config: Config = SETTINGS, otherwise: Otherwise = None, output: Output = None) -> None:
    """Print the public half of the key that [signer] names, as a JWK to publish; its holder is asked for it.

    The key is tested: a probe was signed with it and verified. Exit code 3 if its holder does not respond.
    """
    from watchword_adapters.cli.own_key import run_public  # noqa: PLC0415 - quick start

    raise typer.Exit(run_public(config, otherwise or (), output))


@keyed.command("generate")
def generate(
    *,
    config: Config = SETTINGS,
    algorithm: Annotated[KeyKind, typer.Option(help="Kind of key.")] = KeyKind.ED25519,
    otherwise: Otherwise = None,
    output: Output = None,
) -> None:
    """Create the key that [signer] names in its PKCS#11 token, which never releases it, and print its public half."""
    from watchword_adapters.cli.own_key import run_generate  # noqa: PLC0415 - quick start

    raise typer.Exit(run_generate(config, algorithm.name, otherwise or (), output))


@keyed.command("publish")
def publish(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JWK, JWK Set and PEM files, or directories.")],
    *,
    config: Config = SETTINGS,
    as_json: AsJson = False,
) -> None:
    """Publish public keys to all processes that follow the control log."""
    from watchword_adapters.cli.keys import run_publish  # noqa: PLC0415 - quick start

    raise typer.Exit(run_publish(files, config, as_json=as_json))


@keyed.command("list")
def list_keys(
    principal: Annotated[str | None, typer.Argument(metavar="PRINCIPAL", help="Only this agent's.")] = None,
    *,
    config: Config = SETTINGS,
    ending: Annotated[str, typer.Option("--ending", metavar="TIME", help="Which end counts as soon.")] = "14d",
    as_json: AsJson = False,
) -> None:
    """List the public keys of the control log and of key files, with the state of each.

    Exit code 1 if a key ends soon and its agent has none that ends later.
    """
    from watchword_adapters.cli.keys import run_list  # noqa: PLC0415 - quick start

    raise typer.Exit(run_list(principal, config, ending, as_json=as_json))


class _NamesKey(typer.core.TyperCommand):
    """A command whose argument may be a key id or a thumbprint: one in 64 begins with a hyphen, like an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Separate such names from the options."""
        if "--" not in args:
            names = [one for one in args if _KEY_WITH_HYPHEN.fullmatch(one)]
            args = [*(one for one in args if one not in names), "--", *names]
        return super().parse_args(ctx, args)


@keyed.command("revoke", cls=_NamesKey)
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its kid, its thumbprint, or its file.")],
    *,
    config: Config = SETTINGS,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a public key from now on and for good, whatever source it comes from."""
    from watchword_adapters.cli.keys import run_revoke  # noqa: PLC0415 - quick start

    raise typer.Exit(run_revoke(key, config, yes=yes, as_json=as_json))


@keyed.command("import-card")
def import_card(
    card: Annotated[
        str, typer.Argument(metavar="CARD", help="Its file, its address, or https:// and its agent's host.")
    ],
    principal: Annotated[str, typer.Option("--principal", "-p", help="Who the agent is on the bus.")],
    *,
    jku: Annotated[
        list[str] | None,
        typer.Option("--jku", metavar="URL", help="A key set that the card may point to; may be repeated."),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option("--keys", metavar="FILE", help="A local key set, for the card's kid; may be repeated."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the keys here.")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Allow card and key sets in private networks.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Authorities to trust, in PEM; default: the system's.")
    ] = None,
) -> None:
    """Import the keys that signed an A2A agent card, for an agent that signs its messages with the same key.

    Only keys of a set that you name count. Nothing is published yet: 'key publish' does that. Exit code 1 if no such
    key has signed the card, 3 if card or set cannot be fetched.
    """
    from watchword_adapters.cli.cards import Import, run_import  # noqa: PLC0415 - quick start

    wanted = Import(card, principal, tuple(jku or ()), tuple(keys or ()), output, allow_private, ca)
    raise typer.Exit(run_import(wanted))


@keyed.command("rotate")
def rotate(
    agent: Annotated[Path, typer.Argument(metavar="SETTINGS", help="The agent's own watchword.toml.")],
    *,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The settings of the operator who runs this.")
    ] = SETTINGS,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old key stays valid.")
    ] = "10m",
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="Longest wait until all processes know the new key.")
    ] = "60s",
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="PRINCIPAL", help="Do not wait for this agent's processes; may be repeated."),
    ] = None,
    life: Annotated[
        str | None, typer.Option("--life", metavar="TIME", help="When the new key ends; default: never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give an agent a new key, wait until all processes know it, switch its signer, and end the old key.

    The file with its private key is replaced; a running agent uses the new one within seconds.
    """
    from watchword_adapters.cli.keys import Rotation, run_rotate  # noqa: PLC0415 - quick start

    raise typer.Exit(run_rotate(Rotation(agent, config, overlap, wait, life, tuple(without or ())), as_json=as_json))
