"""Folders as people have them: flat photos, blocky masks, a class file, and what must come of them.

Every photo has one colour and every mask its own blocks, so that a wrong partner shows.
"""

import json
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from PIL import Image

from flaxseg.cli import main
from flaxseg.data import open_source
from flaxseg.errors import DataError, FlaxsegError

BLOCK = 8
GRID = (3, 4)
COLOURS = np.array([(0, 0, 0), (230, 25, 75), (60, 180, 75)], np.uint8)
SPLITS = ("train", "val", "test")

Mask = np.ndarray | Image.Image
Encode = Callable[[np.ndarray], Mask]


def same(ids: np.ndarray) -> np.ndarray:
    """The ids themselves, grey."""
    return ids


def white(ids: np.ndarray) -> np.ndarray:
    """Two classes in black and white, grey."""
    return ids * np.uint8(255)


def three_channels(values: np.ndarray) -> np.ndarray:
    return np.dstack([values] * 3)


def opaque(values: np.ndarray) -> np.ndarray:
    """With an alpha channel of 255 behind the others."""
    return np.dstack((values, np.full(values.shape[:2], 255, np.uint8)))


def painted(ids: np.ndarray) -> np.ndarray:
    """Classes in `COLOURS`, RGB."""
    return COLOURS[ids]


def nearest(colours: np.ndarray) -> np.ndarray:
    """The class whose colour is nearest, (H, W, 3) to (H, W)."""
    apart = colours[:, :, None].astype(int) - COLOURS
    return (apart**2).sum(-1).argmin(-1).astype(np.uint8)


def with_palette(indices: np.ndarray, colours: Iterable[Sequence[int]]) -> Image.Image:
    """A palette picture."""
    picture = Image.fromarray(indices, "L")
    picture.putpalette(bytes(np.ravel(list(colours)).astype(np.uint8)))
    return picture


def voc_colour(index: int) -> tuple[int, int, int]:
    """The colour of Pascal VOC's palette, which takes a bit for each channel in turn."""
    bits = [[index >> (3 * place + channel) & 1 for place in range(3)] for channel in range(3)]
    red, green, blue = (sum(bit << 7 - place for place, bit in enumerate(part)) for part in bits)
    return red, green, blue


VOC_PALETTE = [voc_colour(index) for index in range(256)]


class Folder:
    """A data folder to be written, read and checked through the public doors.

    Attributes:
        path: where it lies; `data_dir` is what is given to flaxseg, the same unless it is packed.
        label: split -> stem of the photo -> the right label map; split "" is not decided.
    """

    def __init__(self, path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
        self.path = self.data_dir = path
        self.label: dict[str, dict[str, np.ndarray]] = {}
        self._colour: dict[str, tuple[int, int, int]] = {}
        self._capsys = capsys
        self._rng = np.random.default_rng(5)
        path.mkdir(parents=True)

    # Writing

    def file(self, name: str) -> pathlib.Path:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        return self.path / name

    def text(self, name: str, *lines: str) -> None:
        self.file(name).write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def json(self, name: str, value: object) -> None:
        self.text(name, json.dumps(value))

    def classes(self, *names: str) -> None:
        """classes.txt with names alone."""
        self.text("classes.txt", *names)

    def colours(self, *names: str, **settings: object) -> None:
        """classes.json that gives each class its one of `COLOURS`."""
        pairs = zip(names, COLOURS.tolist(), strict=False)
        entries = [{"name": name, "color": colour} for name, colour in pairs]
        self.json("classes.json", {"classes": entries, **settings})

    def photo(self, name: str, colour: Sequence[int] = (90, 120, 150)) -> None:
        size = (*np.multiply(GRID, BLOCK), 3)
        self.save(name, np.broadcast_to(np.array(colour, np.uint8), size))

    def save(self, name: str, picture: Mask, **options: object) -> None:
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(np.ascontiguousarray(picture))
        picture.save(self.file(name), **options)

    def ids(self, number: int = 3) -> np.ndarray:
        """Blocks of ids below `number`, each of which occurs."""
        blocks = self._rng.permutation(np.arange(np.prod(GRID)) % number).reshape(GRID)
        return np.kron(blocks, np.ones((BLOCK, BLOCK))).astype(np.uint8)

    def pairs(
        self,
        encode: Encode = same,
        *,
        photos: str = "images/p{}.png",
        masks: str | None = "masks/p{}.png",
        numbers: Iterable[int] = range(5),
        split: str = "",
        classes: int = 3,
        truth: Encode = same,
        **options: object,
    ) -> dict[str, np.ndarray]:
        """Writes photos and their masks.

        Args:
            encode: what a mask file holds, from the ids.
            photos: names of the photos, with {} for the number.
            masks: names of the masks; None writes none.
            numbers: which photos.
            split: where they belong; undecided ones, of which every fifth validates, if empty.
            classes: how many ids there are.
            truth: the right label map, from the ids.
            options: for the writer of the masks.

        Returns:
            The ids of each photo by its name.
        """
        written = {}
        for number in numbers:
            ids, photo = self.ids(classes), photos.format(number)
            stem, colour = pathlib.PurePath(photo).stem, tuple(self._rng.integers(0, 256, 3))
            self.photo(photo, colour)
            if masks is not None:
                self.save(masks.format(number), encode(ids), **options)
            self.label.setdefault(split, {})[stem] = np.asarray(truth(ids))
            self._colour[f"{split}/{stem}"] = colour
            written[photo] = ids
        return written

    def voc(self, encode: Encode = same, **options) -> None:
        """Pairs in Pascal VOC's folders, two of them validating, with the lists that say so."""
        places = {"photos": "JPEGImages/p{}.jpg", "masks": "SegmentationClass/p{}.png"}
        for split, numbers in (("train", range(3)), ("val", (3, 4))):
            self.pairs(encode, **{**places, **options}, numbers=numbers, split=split)
            self.text(f"ImageSets/Segmentation/{split}.txt", *(f"p{n}" for n in numbers))

    def pack(self, name: str, top: str = "") -> None:
        """Packs all files into a zip beside the folder, below `top`, and gives that instead."""
        self.data_dir = self.path.parent / name
        with zipfile.ZipFile(self.data_dir, "w") as archive:
            for file in sorted(self.path.rglob("*")):
                if file.is_file():
                    archive.write(file, f"{top}{file.relative_to(self.path).as_posix()}")

    # Reading

    def reads(
        self,
        *classes: str,
        says: Iterable[str | Sequence[str]] = (),
        or_refused: Sequence[str] = (),
        **options: str,
    ) -> None:
        """Asserts that the label maps, pictures and classes are right and that `check` says so.

        Args:
            classes: the names of the classes.
            says: for each line that `check` must print, words that stand in it.
            or_refused: where a refusal is as good: the words that it must contain.
            options: of `open_source`, which are flags of `check`.
        """
        try:
            self._assert_right(classes, options)
        except DataError as error:
            if not or_refused:
                raise
            self._assert_one_line(str(error), or_refused)
            return
        code, out, err = self.check(options)
        assert code == 0, err
        lines = self._without_place(out + err).splitlines()
        for words in says:
            words = [words] if isinstance(words, str) else words
            assert any(all(_stands(word, line) for word in words) for line in lines), (words, out)

    def refused(self, *words: str, **options: str) -> None:
        """Asserts one line of an error with these words, and a `check` that prints them, too."""
        with pytest.raises(FlaxsegError) as caught:
            open_source("folder", "train", data_dir=self.data_dir, **options)
        self._assert_one_line(str(caught.value), words)
        code, out, err = self.check(options)
        assert code == 2 and re.fullmatch("error: [^\n]+\n", err), err
        self._assert_one_line(" ".join((out + err).split()), words)

    def check(self, options: dict[str, str]) -> tuple[int, str, str]:
        """Exit code and printed text of `flaxseg data check`."""
        pairs = ((f"--{name.replace('_', '-')}", value) for name, value in options.items())
        flags = [part for pair in pairs for part in pair]
        self._capsys.readouterr()
        code = main(["data", "check", "folder", "--data-dir", str(self.data_dir), *flags])
        return code, *self._capsys.readouterr()

    def _assert_right(self, classes: Sequence[str], options: dict[str, str]) -> None:
        undecided = self.label.pop("", {})
        for position, stem in enumerate(sorted(undecided)):
            split = "val" if position % 5 == 4 else "train"
            self.label.setdefault(split, {})[stem] = undecided[stem]
            self._colour[f"{split}/{stem}"] = self._colour[f"/{stem}"]
        for split in SPLITS:
            if split not in self.label:
                continue
            source = open_source("folder", split, data_dir=self.data_dir, **options)
            assert source.labels.classes == tuple(classes)
            stems = [pathlib.PurePath(source.name(i)).stem for i in range(len(source))]
            assert sorted(stems) == sorted(self.label[split])
            for index, stem in enumerate(stems):
                image, label = source[index]
                np.testing.assert_array_equal(label, self.label[split][stem], f"{split}/{stem}")
                # JPEG and WebP keep a flat colour nearly.
                np.testing.assert_allclose(
                    image.mean((0, 1)), self._colour[f"{split}/{stem}"], 0, 6
                )

    def _assert_one_line(self, text: str, words: Iterable[str]) -> None:
        assert "\n" not in text
        missing = [word for word in words if not _stands(word, self._without_place(text))]
        assert not missing, f"{missing} not in: {text}"

    def _without_place(self, text: str) -> str:
        """The text without the temporary folder, whose name may hold any word."""
        return text.replace(f"{self.path.parent}", "")


def _stands(word: str, line: str) -> bool:
    """Whether a word is in a line; a number must not be a part of something longer."""
    if word.isdigit():
        return re.search(rf"(?<![\w.]){word}(?!\w|%|\.\d)", line) is not None
    return word in line
