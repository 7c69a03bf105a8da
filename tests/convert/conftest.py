"""One torch thread, and a server in the place of the Hugging Face hub."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    """More of them stall each other on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the folders OWNER/NAME below `root` as repositories."""

    root: Path

    def do_GET(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = parts[-1]
        parts = parts[2:] if parts[:2] == ["api", "models"] else parts
        folder = self.root.joinpath(*parts[:2])
        files = {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}
        if files and parts[2] == "tree":
            tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in files.items()]
            body = json.dumps(tree).encode()
        elif files and parts[2] == "revision":
            siblings = [{"rfilename": name} for name in files]
            about = {"id": "/".join(parts[:2]), "sha": SHA, "siblings": siblings}
            body = json.dumps(about).encode()
        elif name in files and parts[2] == "resolve":
            body = files[name]
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{name}-{len(body)}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    """Context in which the repositories below a folder are served, for `HF_ENDPOINT`."""

    @contextlib.contextmanager
    def serve(root: Path) -> Iterator[str]:
        handler = type("Served", (Hub,), {"root": root})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()

    return serve
