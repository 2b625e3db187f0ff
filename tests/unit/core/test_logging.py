"""Where the audit trail goes: the standard library's logger, shaped by structlog where the application uses it."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest
import structlog

from tests.unit.core.world import nats
from watchword import Reason, Rejected
from watchword.spi import Audit

REFUSE = """
audit = Audit(clock=lambda: 0.0)
audit.note("replay.rebuilt", log="tasks/0", recalled=3)
audit.refused(message, Rejected(Reason.UNSIGNED, "100 % forged"))
"""
MESSAGE = """
from watchword import Reason, Rejected
from watchword.spi import Audit, Channel, Message
message = Message(channel=Channel("nats", "prod", "tasks"), value=b"{}")
"""
DROP = "message.rejected reason='unsigned' detail='100 % forged' channel='nats://prod/tasks' dropped=True"
JSON = "structlog.processors.add_log_level, structlog.processors.JSONRenderer(sort_keys=True)"


def run(program: str) -> tuple[str, list[str]]:
    """Run a program of its own, for logging belongs to a process; return its standard output, and lines of errors."""
    done = subprocess.run(  # noqa: S603 - the program is this file's own
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr.splitlines()


def test_without_any_set_up_warnings_go_to_standard_error() -> None:
    """Promise: a program whose output is data stays so; a drop is seen nevertheless, with its fields."""
    out, told = run(MESSAGE + REFUSE)
    assert out == ""
    assert told == [DROP]


def test_basic_config_shows_level_logger_and_line() -> None:
    """Promise: levels and formats are logging's, and what happens is shown where INFO is."""
    out, told = run("import logging; logging.basicConfig(level=logging.INFO)" + MESSAGE + REFUSE)
    assert out == ""
    assert told == [
        "INFO:watchword:replay.rebuilt log='tasks/0' recalled=3",
        f"WARNING:watchword:{DROP}",
    ]


def test_the_logger_can_be_silenced() -> None:
    """Promise: the logger's own level and filters decide."""
    silent = "import logging; logging.getLogger('watchword').setLevel(logging.CRITICAL)"
    assert run(silent + MESSAGE + REFUSE) == ("", [])


def test_caplog_has_text_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Promise: a user's test reads events as records; a formatter that writes JSON finds the fields by name."""
    structlog.reset_defaults()
    with caplog.at_level(logging.INFO, "watchword"):
        audit = Audit(clock=lambda: 0.0)
        audit.refused(nats(), Rejected(Reason.STALE, "old"))
        audit.note("replay.rebuilt", name="what logging itself calls a field", recalled=3)
    first, second = caplog.records
    assert (first.name, first.levelname, first.getMessage().split()[0]) == ("watchword", "WARNING", "message.rejected")
    assert vars(first)["watchword"]["reason"] == "stale"
    assert vars(first)["watchword"]["log"] is None
    assert (second.levelname, vars(second)["watchword"]["recalled"]) == ("INFO", 3)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("factory", ["", ", logger_factory=structlog.stdlib.LoggerFactory()"])
def test_an_application_that_configured_structlog_shapes_the_events(when: str, factory: str) -> None:
    """Promise: its processors make JSON of ours too, configured before our import or after; not on standard output."""
    configure = f"\nimport structlog; structlog.configure(processors=[{JSON}]{factory})\n"
    logs = "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')"
    program = [logs + configure, MESSAGE] if when == "before" else [logs + MESSAGE, configure]
    out, told = run("\n".join([*program, REFUSE]))
    assert out == ""
    assert [json.loads(line)["event"] for line in told] == ["replay.rebuilt", "message.rejected"]
    rejected: dict[str, Any] = json.loads(told[1])
    assert (rejected["level"], rejected["reason"], rejected["dropped"]) == ("warning", "unsigned", True)


def test_an_audit_that_was_made_first_follows_a_later_configuration() -> None:
    """Promise: the order of an application's first lines does not matter."""
    made = "audit = Audit(clock=lambda: 0.0)\n"
    configure = f"import structlog; structlog.configure(processors=[{JSON}])\n"
    _, told = run(MESSAGE + made + configure + "audit.warn('a.b', number=1)")
    assert json.loads(told[0]) == {"event": "a.b", "level": "warning", "number": 1}


def test_rendering_by_a_formatter_of_structlogs() -> None:
    """Promise: processors that leave the rendering to logging's formatter, and read the logger's name, work."""
    program = f"""
import logging, structlog
handler = logging.StreamHandler()
handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer()))
logging.getLogger().addHandler(handler)
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.AsyncBoundLogger,
)
{MESSAGE}{REFUSE}"""
    out, told = run(program)
    assert out == ""
    assert [json.loads(line)["logger"] for line in told] == ["watchword"]


def test_a_renderer_that_makes_bytes() -> None:
    """Promise: a configuration for fast JSON, whose renderer gives bytes, gives text in logging's records."""
    renderer = "structlog.processors.JSONRenderer(serializer=lambda event, **_: json.dumps(event).encode())"
    configure = f"import json, sys, structlog; structlog.configure(processors=[{renderer}])\n"
    _, told = run(configure + MESSAGE + REFUSE)
    assert json.loads(told[0])["reason"] == "unsigned"


def test_after_capture_logs_nothing_is_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """Promise: structlog's helper for tests, which leaves it configured, does not bring standard output back."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        Audit(clock=lambda: 0.0).warn("a.b")
    assert lines == [{"event": "a.b", "log_level": "warning"}]
    Audit(clock=lambda: 0.0).warn("a.b")
    assert capfd.readouterr().out == ""
    structlog.reset_defaults()
