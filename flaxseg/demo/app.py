"""The server's side of the page: a fixed set of files, and pictures in, label maps out."""

import asyncio
import base64
import io
import time
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import anyio.to_thread
import jax
import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from flaxseg.demo.guard import Guard
from flaxseg.demo.pages import INDEX_FILE, TYPES, Shown, page_files
from flaxseg.errors import DataError
from flaxseg.inference.pixels import grey
from flaxseg.inference.segmenter import Segmenter
from flaxseg.pictures.photos import Photo, encode_png, look_at_photo

WHERE = "Pictures go to the computer that shows this page, and are not kept."

_MOST_WAITING = 8
"""Pictures that are received or wait at a time; each may be as large as the limit."""

_SECONDS = 60
"""In which a picture must have come."""

_PREVIEW_SIDE = 1600
_LONGEST_NAME = 80


class Limits(NamedTuple):
    """What is taken.

    Attributes:
        bytes: of a file.
        pixels: of a picture; 0 has no limit.
    """

    bytes: int
    pixels: int


class Served(NamedTuple):
    """A model that the page offers."""

    shown: Shown
    segmenter: Segmenter


def make_app(models: Sequence[Served], limits: Limits, host: str) -> ASGIApp:
    """The whole server as an application.

    Nothing is read from the disk once it is made: what can be asked for lies in memory under its
    name, and there is nothing else.

    Args:
        models: one or two.
        limits: of what is taken.
        host: name or address at which it listens.
    """
    too_large = f"has more than the {limits.bytes:,} bytes that are taken; make it smaller"
    files = page_files(
        "server",
        [model.shown for model in models],
        WHERE,
        max_bytes=limits.bytes,
        too_large=too_large,
    )
    files[""] = files[INDEX_FILE]
    desk = _Desk(models, limits, too_large)
    routes = [Route(f"/{name}", _give(name, content)) for name, content in files.items()]
    app = Starlette(
        routes=[*routes, Route("/segment", desk.segment, methods=["POST"])],
        exception_handlers={
            HTTPException: _refuse,
            DataError: _refuse_picture,
            Exception: _own_fault,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, host)


def _give(name: str, content: bytes) -> Any:
    kind = TYPES[PurePath(name or INDEX_FILE).suffix]

    async def give(request: Request) -> Response:
        del request
        return Response(content, media_type=kind)

    return give


async def _refuse(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _refuse_picture(request: Request, error: Exception) -> Response:
    del request
    return JSONResponse({"error": str(error)}, 422)


async def _own_fault(request: Request, error: Exception) -> Response:
    del request, error  # uvicorn prints it
    return JSONResponse({"error": "this is a bug to report; the terminal tells more"}, 500)


class _Desk:
    """Takes pictures in, and passes them to the models one at a time."""

    def __init__(self, models: Sequence[Served], limits: Limits, too_large: str):
        self._models, self._limits, self._too_large = models, limits, too_large
        self._one_at_a_time = anyio.CapacityLimiter(1)
        self._waiting = 0

    async def segment(self, request: Request) -> Response:
        """Answers with what the model says about the picture that is the request's body."""
        model = self._model(request.query_params.get("model", "0"))
        name = _shown_name(request.query_params.get("name", ""))
        preview = request.query_params.get("photo") == "1"
        if self._waiting >= _MOST_WAITING:
            raise HTTPException(429, "too many pictures are waiting; try again in a moment")
        self._waiting += 1
        try:
            data = await self._receive(request, name)
            work = _segment, model.segmenter, data, name, self._limits.pixels, preview
            answer = await anyio.to_thread.run_sync(*work, limiter=self._one_at_a_time)
        finally:
            self._waiting -= 1
        return JSONResponse(answer)

    def _model(self, number: str) -> Served:
        known = {str(index): model for index, model in enumerate(self._models)}
        if number not in known:
            raise HTTPException(
                404, f"there is no model {number!r:.20}: ask for {', '.join(known)}"
            )
        return known[number]

    async def _receive(self, request: Request, name: str) -> bytes:
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limits.bytes:
            raise HTTPException(413, f"{name}: {self._too_large}")
        data = bytearray()
        try:
            async with asyncio.timeout(_SECONDS):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > self._limits.bytes:
                        raise HTTPException(413, f"{name}: {self._too_large}")
        except TimeoutError:
            raise HTTPException(408, f"{name}: did not come within {_SECONDS} s") from None
        except ClientDisconnect:
            raise HTTPException(400, f"{name}: only a part of it came") from None
        return bytes(data)


def _shown_name(name: str) -> str:
    """A file's name as messages show it."""
    kept = "".join(letter for letter in name if letter.isprintable())
    return PurePath(kept).name[-_LONGEST_NAME:] or "the picture"


def _segment(
    segmenter: Segmenter, data: bytes, name: str, max_pixels: int, preview: bool
) -> dict[str, Any]:
    """What the page gets for a picture, in any thread.

    Raises:
        DataError: the picture cannot be used.
    """
    begin = time.perf_counter()
    photo = look_at_photo(name, max_pixels=max_pixels, find_plain=False, data=data)
    own = (photo.pixels.shape[0], photo.pixels.shape[1])
    try:
        found = segmenter.start(photo.pixels, detail="confidence")()
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        size = f"{own[0]} x {own[1]} pixels"
        raise DataError(f"{name}: {size} do not fit in memory; make it smaller") from error
    assert found.confidence is not None
    return {
        "labels": _png(found.label),
        "confidence": _png(grey(found.confidence)),
        "seconds": time.perf_counter() - begin,
        "remarks": [*_seen(segmenter, own), *photo.facts.remarks],
        **({"photo": _preview(photo)} if preview else {}),
    }


def _seen(segmenter: Segmenter, own: tuple[int, int]) -> list[str]:
    height, width = segmenter.inner_size(own)
    return [f"seen at {width} × {height}"] if (height, width) != own else []


def _png(values: np.ndarray) -> str:
    return base64.b64encode(encode_png(Image.fromarray(values))).decode("ascii")


def _preview(photo: Photo) -> str:
    """The picture for a browser that cannot read its file."""
    picture = Image.fromarray(photo.pixels)
    picture.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
