"""Both type checkers, set up as a careful user would: in their strict modes, with no settings of ours."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from mypy import api

ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = (ROOT / "src", ROOT / "adapters")
# Of what a client's own classes do not say pyright knows nothing; and pieces of programs leave things unused.
_OFF: Final = (
    "reportMissingTypeStubs", "reportUnknownMemberType", "reportUnknownVariableType", "reportUnknownArgumentType",
    "reportUnusedVariable", "reportUnusedImport", "reportUnusedFunction", "reportUnusedClass", "reportUnusedExpression",
)  # fmt: skip


def write(folder: Path, programs: Sequence[str]) -> None:
    """Write programs into a folder, as modules ``snippet_0`` and so on."""
    for number, program in enumerate(programs):
        (folder / f"snippet_{number}.py").write_text(program)


def mypy_on(folder: Path, *, imports_clients: bool = False) -> Mapping[int, str]:
    """Return what ``mypy --strict`` says of each program; -1 is for anything else.

    One that ``imports_clients`` is let do so: of aiokafka's own classes nothing is known.
    """
    before, depth = os.environ.get("MYPYPATH"), sys.getrecursionlimit()
    os.environ["MYPYPATH"] = os.pathsep.join(map(str, (folder, *_SOURCES)))
    try:
        options = ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={folder / 'cache'}"]
        options += ["--disable-error-code=import-untyped"] if imports_clients else []
        output, errors, _ = api.run([*options, *map(str, sorted(folder.glob("*.py")))])
    finally:
        os.environ.pop("MYPYPATH") if before is None else os.environ.update(MYPYPATH=before)
        sys.setrecursionlimit(depth)  # mypy raises it, for the tests after it too
    assert not errors, errors
    return _by_number((line.partition(":")[0], line) for line in output.splitlines())


def pyright_on(folder: Path) -> Mapping[int, str]:
    """Return what ``pyright`` says of each program in its strict mode; -1 is for anything else."""
    settings = {
        "include": [str(folder)],
        "extraPaths": [str(path) for path in (folder, *_SOURCES)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings | dict.fromkeys(_OFF, False)))
    run = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "pyright", "--project", str(folder), "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(run.stdout)
    assert told["summary"]["filesAnalyzed"] == len([*folder.glob("*.py")]), "it has read every program"
    return _by_number((one["file"], one["message"]) for one in told["generalDiagnostics"] if one["severity"] == "error")


def _by_number(found: Iterable[tuple[str, str]]) -> Mapping[int, str]:
    texts: defaultdict[int, str] = defaultdict(str)
    for path, text in found:
        stem = Path(path).stem
        texts[int(stem.removeprefix("snippet_")) if stem.startswith("snippet_") else -1] += text + "\n"
    return texts
