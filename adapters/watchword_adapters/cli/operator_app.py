"""The commands of operators and their arguments; what they do is beside, and imported when it is used."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from watchword_adapters.cli.options import SETTINGS, AsJson, Config, KeyKind, Yes

controlled = typer.Typer(no_args_is_help=True, help="Make, read and look after the control log.")
keyed = typer.Typer(
    no_args_is_help=True,
    help="Show and make an agent's own key; give, list, revoke and rotate keys on the control log.",
)

_KEY_WITH_HYPHEN = re.compile(r"-[\w-]{15}|-[\w-]{42}", re.ASCII)

Who = Annotated[
    str, typer.Argument(metavar="WHO", help="A principal; '*' stands for one part, a last '**' for all that follows.")
]


def contain(
    who: Who,
    *,
    config: Config = SETTINGS,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="As 30m, 1h or 7d; left out, for good.")
    ] = None,
    why: Annotated[
        str, typer.Option("--why", metavar="TICKET", help="All processes read it, contained ones too.")
    ] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let nothing more be delivered that an agent signs, on any bus, within a second.

    What ends with '**' matches many, and is asked for first.
    """
    from watchword_adapters.cli.control import run_contain  # noqa: PLC0415 - quick start

    raise typer.Exit(run_contain(who, config, lasting, why, yes=yes, as_json=as_json))


def release(
    who: Who,
    *,
    config: Config = SETTINGS,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Though the log knows of none: it was made anew, and readers do.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End the containment of exactly this text, and name what still holds. Exit code 1 if anything does."""
    from watchword_adapters.cli.control import run_release  # noqa: PLC0415 - quick start

    raise typer.Exit(run_release(who, config, anyway=anyway, as_json=as_json))


@controlled.command("init")
def init_log(*, config: Config = SETTINGS, as_json: AsJson = False) -> None:
    """Make the control log that [control] names, or check the one that is there. Harmless to run twice."""
    from watchword_adapters.cli.control import run_init  # noqa: PLC0415 - quick start

    raise typer.Exit(run_init(config, as_json=as_json))


@controlled.command("log")
def show_log(
    *,
    config: Config = SETTINGS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what the control log holds: who said what, and what does not count. Exit code 1 if anything does not."""
    from watchword_adapters.cli.control import run_log  # noqa: PLC0415 - quick start

    raise typer.Exit(run_log(config, follow=follow, as_json=as_json))


@controlled.command("adopt")
def adopt(
    operator: Annotated[str, typer.Argument(metavar="OPERATOR", help="Whose words you say once more.")],
    *,
    config: Config = SETTINGS,
    without: Annotated[
        list[int] | None,
        typer.Option("--without", metavar="POSITION", help="Leave out what the log has there; may be repeated."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say in your own name what stands of another operator's words, before that operator's key is revoked.

    They are shown first, with their positions in the log: whoever stole the key may have said some of them.
    """
    from watchword_adapters.cli.control import run_adopt  # noqa: PLC0415 - quick start

    raise typer.Exit(run_adopt(operator, config, without or (), yes=yes, as_json=as_json))


@controlled.command("attend")
def attend(
    *,
    config: Config = SETTINGS,
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="Time between two heartbeats.")] = "10s",
) -> None:
    """Say at intervals that nothing is withheld; needs a key that may say no more than 'head'."""
    from watchword_adapters.cli.control import run_attend  # noqa: PLC0415 - quick start

    raise typer.Exit(run_attend(config, every))


Otherwise = Annotated[
    list[str] | None,
    typer.Option(
        "--with", metavar="NAME=VALUE", help="What [signer] is to say instead, as version=2; may be repeated."
    ),
]

Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the JWK here; no file is overwritten.")
]


@keyed.command("public")
def show_public(*, config: Config = SETTINGS, otherwise: Otherwise = None, output: Output = None) -> None:
    """Print the public half of the key that [signer] names, as a JWK to be published; whoever holds it is asked.

    It is a key that signs: a probe was signed by it and verified. Exit code 3 if whoever holds it does not answer.
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
    """Make the key that [signer] names in its PKCS#11 token, which will not give it away, and print its public half."""
    from watchword_adapters.cli.own_key import run_generate  # noqa: PLC0415 - quick start

    raise typer.Exit(run_generate(config, algorithm.name, otherwise or (), output))


@keyed.command("publish")
def publish(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JWK, JWK Set and PEM files, or directories.")],
    *,
    config: Config = SETTINGS,
    as_json: AsJson = False,
) -> None:
    """Give public keys to all processes that follow the control log."""
    from watchword_adapters.cli.keys import run_publish  # noqa: PLC0415 - quick start

    raise typer.Exit(run_publish(files, config, as_json=as_json))


@keyed.command("list")
def list_keys(
    principal: Annotated[str | None, typer.Argument(metavar="PRINCIPAL", help="Only this agent's.")] = None,
    *,
    config: Config = SETTINGS,
    ending: Annotated[str, typer.Option("--ending", metavar="TIME", help="What counts as soon.")] = "14d",
    as_json: AsJson = False,
) -> None:
    """List the public keys of the control log and of key files, and what holds of each.

    Exit code 1 if a key ends soon and its agent has none that ends later.
    """
    from watchword_adapters.cli.keys import run_list  # noqa: PLC0415 - quick start

    raise typer.Exit(run_list(principal, config, ending, as_json=as_json))


class _NamesKey(typer.core.TyperCommand):
    """A command whose argument may be a key id or a thumbprint: one of 64 begins with a hyphen, as options do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Part such names from the options."""
        if "--" not in args:
            names = [one for one in args if _KEY_WITH_HYPHEN.fullmatch(one)]
            args = [*(one for one in args if one not in names), "--", *names]
        return super().parse_args(ctx, args)


@keyed.command("revoke", cls=_NamesKey)
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its kid, its thumbprint, or a file of it.")],
    *,
    config: Config = SETTINGS,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let nothing more verify by a public key, from now on and for good, whatever source it comes from."""
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
        typer.Option("--keys", metavar="FILE", help="A key set that you have, for the card's kid; may be repeated."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the keys here.")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Card and key sets may be in your own network.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Authorities to trust, in PEM; default the system's.")
    ] = None,
) -> None:
    """Take the keys that signed an A2A agent card, for an agent that signs its messages with the same one.

    A key counts only out of a set that you name. Nothing is given to anybody yet: that is done by 'key publish'. Exit
    code 1 if no such key has signed the card, 3 if card or set cannot be fetched.
    """
    from watchword_adapters.cli.cards import Import, run_import  # noqa: PLC0415 - quick start

    wanted = Import(card, principal, tuple(jku or ()), tuple(keys or ()), output, allow_private, ca)
    raise typer.Exit(run_import(wanted))


@keyed.command("rotate")
def rotate(
    agent: Annotated[Path, typer.Argument(metavar="SETTINGS", help="The agent's own watchword.toml.")],
    *,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The settings of the operator who types this.")
    ] = SETTINGS,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="For how long the old key holds on.")
    ] = "10m",
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="Longest wait until all processes know the new key.")
    ] = "60s",
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="PRINCIPAL", help="Do not wait for this agent's processes; may be repeated."),
    ] = None,
    life: Annotated[
        str | None, typer.Option("--life", metavar="TIME", help="After which the new key ends; left out, never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give an agent a new key, wait until all know it, switch its signer, and let the old key end.

    The file with its private key is replaced; an agent that runs takes up the new one within seconds.
    """
    from watchword_adapters.cli.keys import Rotation, run_rotate  # noqa: PLC0415 - quick start

    raise typer.Exit(run_rotate(Rotation(agent, config, overlap, wait, life, tuple(without or ())), as_json=as_json))
