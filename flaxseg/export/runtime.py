"""onnxruntime-web: the files of its npm package that a page needs, fetched once into the cache."""

import contextlib
import hashlib
import os
import tarfile
import urllib.request
from pathlib import Path
from typing import BinaryIO

from flaxseg.caches import DOWNLOADS, cache_root
from flaxseg.errors import ConfigError
from flaxseg.files import replace_file

VERSION = "1.30.0"
SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""Of the package, as the registry has published it."""

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What computes on the visitor's processor, and nothing for other devices."""

REGISTRY = "https://registry.npmjs.org"
"""Unless $NPM_CONFIG_REGISTRY names another one, as for npm itself."""

_PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
_ANSWER_SECONDS = 30


def runtime_files(local: Path | None) -> dict[str, bytes]:
    """The files by their names.

    Args:
        local: the package as `npm pack` writes it; None: from the cache, or else the registry.

    Raises:
        ConfigError: another package, or one that cannot be read or downloaded.
    """
    package = local or cache_root() / DOWNLOADS / _PACKAGE
    if local is None and not package.is_file():
        _download(package)
    try:
        with package.open("rb") as file:
            return _unpacked(file, package)
    except OSError as error:
        raise ConfigError(f"{package} cannot be read ({error.strerror or error})") from error


def _unpacked(file: BinaryIO, package: Path) -> dict[str, bytes]:
    found = hashlib.sha512(file.read()).hexdigest()
    if found != SHA512:
        raise ConfigError(
            f"{package} is not {_PACKAGE} (sha512 {found[:12]}…, expected {SHA512[:12]}…): get it "
            f"with npm pack onnxruntime-web@{VERSION}"
        )
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: member.read() for name, member in members.items() if member is not None}


def _download(package: Path) -> None:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/onnxruntime-web/-/{_PACKAGE}"
    print(f"runtime    downloading {url} to {package.parent}")
    try:
        package.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.closing(urllib.request.urlopen(url, timeout=_ANSWER_SECONDS)) as answer,
            replace_file(package) as partial,
        ):
            content = answer.read()
            if hashlib.sha512(content).hexdigest() != SHA512:
                raise OSError("another checksum than was published")
            partial.write_bytes(content)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{url} cannot be downloaded ({error}): get it where there is a network, with npm pack "
            f"onnxruntime-web@{VERSION}, and give --runtime {_PACKAGE}"
        ) from error
