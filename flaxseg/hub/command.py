"""`flaxseg push`."""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from flaxseg.errors import CheckpointError, ConfigError, DataError
from flaxseg.files import replace_file, replace_text
from flaxseg.hub.card import HUB, card_text, is_untouched, licence_fields
from flaxseg.hub.facts import Facts, facts
from flaxseg.hub.picture import knows_shapes, write_picture
from flaxseg.hub.remote import CARD, Held, check_name, look, push
from flaxseg.model_dir import CONFIG_FILE, WEIGHTS_FILE
from flaxseg.origin import licences
from flaxseg.printed import in_bytes
from flaxseg.report.command import SCORES_FILE

PICTURE = "picture.png"
FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD, PICTURE, SCORES_FILE)
"""What is pushed; the last two where there is something to show."""

MESSAGE = "Push model with flaxseg"


@dataclasses.dataclass(frozen=True)
class PushArgs:
    """Put a model on the Hugging Face hub, with a card that explains it, in one commit.

    Others use it by its name, without PyTorch: flaxseg predict hf:owner/name photo.jpg.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Work directory of a training run, model directory, or any checkpoint that `flaxseg convert
    formats` lists: file, folder or hf:owner/name[@revision]."""

    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository of the hub; it is made if it does not exist."""

    picture: Path | None = None
    """Photo to show in the card with what the network finds in it. None: drawn shapes, where the
    network knows them, or else no picture."""

    report: Path | None = None
    """Folder that `flaxseg eval MODEL --report` wrote, for the scores. None: scores.json in the
    directory of the model, or else those of the training."""

    licence: str | None = None
    """The hub's identifier of the licence under which you publish, such as apache-2.0. None: that
    of the weights that the model was made from."""

    private: bool = False
    """Others do not see the repository."""

    overwrite: bool = False
    """Replace files of the same names, too, that another program or a person wrote."""

    dry_run: bool = False
    """Write the folder and say what would go; nothing is sent or asked."""

    message: str = MESSAGE
    """Of the commit."""

    out: Path | None = None
    """Folder to keep of what is pushed. None: none is kept, or NAME with --dry-run."""

    def __call__(self, opened: Callable[[str], Path]) -> None:
        """Writes the folder and uploads it.

        Args:
            opened: makes a directory of ours of what the user names.

        Raises:
            FlaxsegError: a name or a file that does not fit, or the hub does not take it.
        """
        check_name(self._name)
        if not self.message.strip():
            raise ConfigError("--message is empty: say what the commit brings")
        with self._folder() as folder:
            held = None if self.dry_run else self._look()
            names = self._write(opened(self.model), folder)
            if held is None:
                print(f"kept       {folder}: nothing is sent to {self._name}")
                return
            options: dict[str, Any] = {"message": self.message, "private": self.private}
            url = push(self._name, folder, names, held=held, **options)
        for name in sorted(held.files.intersection(FILES).difference(names)):
            print(f"stays      {name} of earlier, which is not of these weights")
        print(f"pushed     {url}" if url else f"pushed     nothing: {self._name} has it all")

    @property
    def _name(self) -> str:
        """Without what stands before it where a model is read."""
        return self.repository.removeprefix(HUB)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """The folder to fill: the one to keep, if any."""
        out = self.out or (Path(self._name.partition("/")[2]) if self.dry_run else None)
        if out is None:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder)
            return
        try:
            names = [entry.name for entry in out.iterdir()] if out.exists() else []
            card = out / CARD
            text = card.read_text(encoding="utf-8", errors="replace") if CARD in names else ""
        except OSError as error:
            raise DataError(f"--out {out} cannot be read ({error.strerror})") from None
        self._check_free(f"--out {out}", names, text)
        yield out

    def _look(self) -> Held:
        """What the repository holds, if that may be added to."""
        held = look(self._name)
        self._check_free(self._name, held.files, held.card)
        if self.private and held.commit is not None and not held.private:
            raise ConfigError(
                f"--private: {self._name} exists and everybody sees it: make it private in "
                "its settings on the hub, or leave --private out"
            )
        return held

    def _check_free(self, place: str, files: Collection[str], card: str) -> None:
        """Nothing that anybody else wrote may be lost."""
        taken = [name for name in FILES if name in files]
        if taken and not self.overwrite and not is_untouched(card):
            raise ConfigError(
                f"{place} holds {', '.join(taken)}, which flaxseg push did not write or somebody "
                "has changed since: give --overwrite to replace it, or another name"
            )

    def _write(self, model: Path, folder: Path) -> list[str]:
        """Fills the folder, says what is in it, and returns the names of the files."""
        found = facts(model, self.report)
        licence_fields(found.chain, self.licence or "")  # refuses before the work begins
        _copy(found.info.path, folder)
        about = self._draw(found, folder)
        replace_text(
            folder / CARD,
            card_text(found, self._name, picture=about, licence=self.licence or ""),
        )
        if found.scored and found.scored.file:
            text = json.dumps(found.scored.file, indent=2, ensure_ascii=False)
            replace_text(folder / SCORES_FILE, text + "\n")
        self._say(found)
        has = {PICTURE: about, SCORES_FILE: found.scored and found.scored.file}
        names = [name for name in FILES if has.get(name, True)]
        for name in names:
            print(f"file       {name}, {in_bytes((folder / name).stat().st_size)}")
        return names

    def _draw(self, found: Facts, folder: Path) -> tuple[str, str] | None:
        """Writes the picture, if there is one, and returns its name with the text below it."""
        labels = found.info.labels
        if self.picture is None and not knows_shapes(labels):
            return None
        write_picture(folder / PICTURE, folder, labels, self.picture, found.view)
        what = "a picture of drawn shapes" if self.picture is None else "a photo"
        return PICTURE, f"What the network finds in {what}"

    def _say(self, found: Facts) -> None:
        """What others will read that the user may want to be otherwise."""
        told = self.licence or "; ".join(licences(found.chain))
        print(f"licence    {told or 'not told: --licence apache-2.0, or another one, says it'}")
        if found.unused:
            print(f"left out   {found.unused}")
        if found.scored is None:
            print("scores     not known: flaxseg eval MODEL --report DIR, then --report DIR")
        if self.picture is None and not knows_shapes(found.info.labels):
            print("picture    none: --picture photo.jpg shows what the network finds in it")


def _copy(directory: Path, folder: Path) -> None:
    """Copies the model, whole: a run at work replaces it when it has got a better one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = (directory / CONFIG_FILE).read_bytes()
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            with replace_file(folder / name) as partial:
                shutil.copyfile(directory / name, partial)
        same = before == (folder / CONFIG_FILE).read_bytes()
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {error.strerror or error}") from None
    if not same:
        raise CheckpointError(f"{directory} has changed while it was read: push again")
