"""The server in a thread, and requests that reach it as they are written."""

import contextlib
import http.client
import json
import socket
import threading
from typing import NamedTuple

import pytest
import uvicorn

from convert.parity.networks import small_config
from convert.parity.runs import random_state
from flaxseg import models, native
from flaxseg.demo.app import Limits, make_app
from flaxseg.labels import LabelSet

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))
LABELS = LabelSet("pets", ("cat", "dog", "sofa", "grass", "sky"), PALETTE)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """Asks a server, without mending the path as clients do."""

    def __init__(self, port: int):
        self.port = port

    def ask(self, path="/", body=None, method=None, chunked=False, **headers) -> Answer:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body, named, encode_chunked=chunked)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())


LIMITS = Limits(100_000, 64 * 64)


@contextlib.contextmanager
def run_server(served, limits=LIMITS):
    app = make_app(served, limits, "127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield Server(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def serving():
    return run_server


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    """Two narrow networks with random weights: one takes a canvas, the other one size alone."""
    found = []
    tiny = {"backbone.blocks": (1, 1, 1, 1), "backbone.width": 4, "channels": 8}
    for name, overrides in (("ccnet", tiny), ("vitseg", {})):
        config = models.override(small_config(name), overrides)
        model = native.fill(models.abstract_model(config), random_state(config, 0))
        found.append(tmp_path_factory.mktemp("demo") / name)
        native.save(model, found[-1], labels=LABELS, name=name)
    return found
