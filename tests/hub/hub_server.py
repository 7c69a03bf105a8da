"""A server in the place of the Hugging Face hub, for `HF_ENDPOINT`."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read when huggingface_hub is imported: the server here knows git's way for large files alone.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

LARGE = ".safetensors"
WRITER, READER = "hf_writer", "hf_reader"
"""Tokens: of somebody who may write to me/*, and of somebody who may write nowhere."""


def sha_of(files: dict[str, bytes]) -> str:
    """A commit, by its content."""
    digests = (name.encode() + hashlib.sha256(files[name]).digest() for name in sorted(files))
    return hashlib.sha1(b"".join(digests)).hexdigest()


def oid_of(name: str, content: bytes) -> str:
    """As git names a file, or the hub a large one."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the folders OWNER/NAME below `root` as repositories, and takes commits to them.

    Large files are uploaded to another place before a commit, all others come with it. A file
    `private.txt` makes a repository private, `.gitignore` names the files that it leaves out.
    """

    root: Path
    commits: list[dict[str, Any]]
    large: dict[str, bytes]

    @property
    def token(self) -> str:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ")

    def do_GET(self):
        if self.token not in ("", WRITER, READER):
            self.refuse(401, message="Invalid credentials in Authorization header")
            return
        parts = self.path.partition("?")[0].strip("/").split("/")
        name = parts[-1]
        parts = parts[2:] if parts[:2] == ["api", "models"] else parts
        repository = "/".join(parts[:2])
        files = self.files(repository)
        if files and len(parts) == 2 or files and parts[2] == "revision":
            siblings = [{"rfilename": name} for name in files]
            about = {"id": repository, "sha": sha_of(files), "siblings": siblings}
            body = json.dumps(about | {"private": "private.txt" in files}).encode()
        elif files and parts[2] == "tree":
            tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in files.items()]
            body = json.dumps(tree).encode()
        elif name in files and parts[2] == "resolve":
            body = files[name]
        else:
            self.refuse(404, "RepoNotFound" if not files else "EntryNotFound")
            return
        tag = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": sha_of(files)}
        self.answer(body, tag)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if self.token != WRITER:
            self.refuse(403, message="You have read access but not the required permissions")
        elif parts[-1] == "validate-yaml":
            self.tell({"errors": [], "warnings": []})
        elif parts[-2:] == ["repos", "create"]:
            self.create(json.loads(body))
        elif parts[-2:] == ["preupload", "main"]:
            self.preupload("/".join(parts[2:4]), json.loads(body)["files"])
        elif parts[-2:] == ["objects", "batch"]:
            upload = {"href": f"http://{self.headers['Host']}/large"}
            named = json.loads(body)["objects"]
            self.tell({"objects": [each | {"actions": {"upload": upload}} for each in named]})
        else:
            assert parts[-2:] == ["commit", "main"], self.path
            self.commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])

    def do_PUT(self):
        assert self.path == "/large"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.large[hashlib.sha256(body).hexdigest()] = body
        self.tell({})

    def create(self, asked: dict[str, Any]):
        folder = self.root / "me" / asked["name"]
        if folder.exists():
            self.refuse(409, message="You already created this model repo")
            return
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("")
        if asked.get("visibility") == "private":
            (folder / "private.txt").write_text("")
        self.tell({"url": f"http://{self.headers['Host']}/me/{asked['name']}"})

    def preupload(self, repository: str, asked: list[dict[str, Any]]):
        files = self.files(repository)
        ignored = files.get(".gitignore", b"").decode().split()
        told = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                "shouldIgnore": each["path"] in ignored,
                "oid": oid_of(each["path"], files[each["path"]]) if each["path"] in files else None,
            }
            for each in asked
        ]
        self.tell({"files": told})

    def commit(self, repository: str, lines: list[dict[str, Any]]):
        header, *rest = lines
        parent = header["value"].get("parentCommit")
        if parent not in (None, sha_of(self.files(repository))):
            self.refuse(412, message="A commit has happened since")
            return
        for line in rest:
            value = line["value"]
            content = self.large.get(value.get("oid", "")) or base64.b64decode(value["content"])
            (self.root / repository / value["path"]).write_bytes(content)
        files = [line["value"]["path"] for line in rest]
        self.commits.append({"message": header["value"]["summary"], "files": sorted(files)})
        oid = sha_of(self.files(repository))
        url = f"http://{self.headers['Host']}/{repository}/commit/{oid}"
        self.tell({"commitUrl": url, "commitOid": oid})

    def files(self, repository: str) -> dict[str, bytes]:
        folder = self.root / repository
        return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else {}

    def tell(self, values: dict[str, Any]):
        self.answer(json.dumps(values).encode(), {"Content-Type": "application/json"})

    def answer(self, body: bytes, headers: dict[str, str]):
        self.send_response(200)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = ""):
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(root: Path, commits: list[dict[str, Any]] | None = None) -> Iterator[str]:
    """Context in which the repositories below a folder are served; gives the address.

    Every commit is appended to the list that is given.
    """
    taken = [] if commits is None else commits
    handler = type("Served", (Hub,), {"root": root, "commits": taken, "large": {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
