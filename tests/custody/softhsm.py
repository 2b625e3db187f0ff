"""A token of SoftHSM 2, as Debian has it: ``apt-get install softhsm2``."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.brokers.broker import NotHereError

PIN = "271828"
LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib/pkcs11/libsofthsm2.so")


class SoftHsm:
    """Tokens in a directory. A process reads which one it is when it loads the library, so there is one a process."""

    pin = PIN

    def __init__(self, directory: Path) -> None:
        found = next((path for path in LIBRARIES if Path(path).exists()), None)
        if found is None or shutil.which("softhsm2-util") is None:
            raise NotHereError("SoftHSM 2 is not installed: apt-get install softhsm2")
        self.module = found
        tokens = directory / "tokens"
        tokens.mkdir()
        self.config = directory / "softhsm2.conf"
        self.config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(self.config)

    def make_token(self, label: str) -> None:
        """Make a token, with the user's PIN set."""
        subprocess.run(  # noqa: S603 - ours
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "31415926", "--pin", PIN],  # noqa: S607 - as Debian installs it
            check=True, capture_output=True,
        )  # fmt: skip
