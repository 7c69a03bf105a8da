"""`flaxseg demo`."""

import contextlib
import dataclasses
import importlib.util
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from flaxseg.errors import ConfigError

NEEDED = ("starlette", "uvicorn")


@dataclasses.dataclass(frozen=True)
class DemoArgs:
    """Segment pictures on a page in the browser, with one model or two beside each other."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]."""

    second: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL2")] = None
    """Likewise, shown beside the first."""

    host: str = "127.0.0.1"
    """Address to listen at. 127.0.0.1 is reached from this computer alone, 0.0.0.0 by everybody on
    the network: there is no password."""

    port: int = 8000
    """Port to listen at; 0 takes a free one."""

    max_side: int | None = 2048
    """Longest side, in pixels, of pictures that are neither stretched nor seen through windows;
    larger ones are shrunk before. None: no limit."""

    max_bytes: int = 32 * 2**20
    """Largest file that is taken."""

    max_pixels: int = 50_000_000
    """Largest area of a picture, in pixels; 0 has no limit."""

    def __call__(self, opened: Callable[[str], Path]) -> None:
        """Serves until Ctrl-C.

        Args:
            opened: makes a directory of ours of what the user names.

        Raises:
            FlaxsegError: a package is missing, a model cannot be read, or the port is taken.
        """
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(f"demo needs {' and '.join(missing)}: pip install 'flaxseg[demo]'")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: give 1 to 65535, or 0 for a free one")
        if self.max_bytes < 1:
            raise ConfigError(f"--max-bytes {self.max_bytes}: give at least 1")
        with contextlib.closing(self._listen()) as listening:
            self._serve(listening, opened)

    def _listen(self) -> socket.socket:
        """A socket at the address, before minutes are spent on models."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            # create_server adds the address to what the system says; of names it knows no number.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror
            raise ConfigError(
                f"--host {self.host} --port {self.port}: {reason}; choose another port, or 0 for a "
                "free one"
            ) from error

    def _serve(self, listening: socket.socket, opened: Callable[[str], Path]) -> None:
        import uvicorn

        from flaxseg.demo.app import Limits, make_app
        from flaxseg.demo.models import open_models
        from flaxseg.pictures.open import check_max_pixels

        check_max_pixels(self.max_pixels)
        names = [name for name in (self.model, self.second) if name is not None]
        models = open_models(names, opened, max_side=self.max_side)
        app = make_app(models, Limits(self.max_bytes, self.max_pixels), self.host)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
        )
        host = f"[{self.host}]" if ":" in self.host else self.host
        print(f"demo       http://{host}:{listening.getsockname()[1]}/ until Ctrl-C", flush=True)
        # uvicorn passes Ctrl-C on once all answers are given: here it is the usual end.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
