"""Brokers in containers, through testcontainers."""

import gc
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from docker.errors import DockerException as EngineError  # type: ignore[import-not-found] # hidden by our docker/
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from tests.brokers.broker import NotHereError


class Container:
    """A container whose one port is published on the loopback address, at the same port for its whole life."""

    def __init__(
        self,
        image: str,
        *,
        port: int,
        published: int,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self._container = DockerContainer(image).with_envs(**(environment or {})).with_command(list(command))
        # The engine takes (address, port) too; the annotation knows only a port, which would listen on every address.
        self._container.ports[f"{port}/tcp"] = ("127.0.0.1", published)  # type: ignore[assignment]
        try:
            self._container.start()
        except EngineError as error:
            self._container.stop()
            raise NotHereError(f"the engine does not start {image}: {error}") from error

    def log(self) -> str:
        """Return both output streams."""
        output: bytes = self._container.get_wrapped_container().logs()
        return output.decode(errors="replace")

    def running(self) -> bool:
        """Ask the engine."""
        self._container.reload()
        return self._container.status in {"running", "paused"}

    def pause(self) -> None:
        """Freeze every process of the container."""
        self._container.get_wrapped_container().pause()

    def unpause(self) -> None:
        """Thaw the container."""
        self._container.get_wrapped_container().unpause()

    def restart(self) -> None:
        """Restart the container: it keeps its file system and its published port."""
        self._container.get_wrapped_container().restart(timeout=20)

    def stop(self) -> None:
        """Remove the container."""
        self._container.stop()


def local_image(*names: str) -> str:
    """Return the first of these images that the engine holds, or try to pull the first one."""
    client = _engine()
    try:
        held = {tag for image in client.images.list() for tag in image.tags}
        # Without its image the reaper would be pulled for every run; the brokers are removed by their fixtures anyway.
        testcontainers_config.ryuk_disabled = testcontainers_config.ryuk_image not in held
        for name in names:
            if name in held:
                return name
        client.images.pull(names[0])
    except EngineError as error:
        raise NotHereError(f"no image {' or '.join(names)}: run docker/build.sh ({error})") from error
    finally:
        client.close()
    return names[0]


def _engine() -> Any:
    with warnings.catch_warnings():
        # The client drops its socket unclosed when nothing answers: collected here, it cannot fail a later test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return DockerClient(timeout=60).client
        except EngineError as error:
            reason = str(error)
        gc.collect()
    raise NotHereError(f"no Docker engine answers ({reason})")
