"""What was done in an output folder, so that the next run need not do it again."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flaxseg.errors import DataError
from flaxseg.files import replace_text
from flaxseg.inference.inputs import Input, Target, plain_name

SETTINGS_FILE = "predictions.json"
"""The model and the settings with which all outputs of a folder were made."""

JOURNAL_FILE = "photos.jsonl"
"""A line for each photo that was done."""

PART_FILE = "photos-of-{}.jsonl"
"""The same, of those that a process from 1 on has done, until they join the others."""

_MEND = "give --overwrite to do all anew, or another folder with --out"


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files, such as those of a model, in hexadecimal."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.name} {digest}\n".encode())
    return total.hexdigest()


def _end_with_a_line(file: Path) -> None:
    """Removes a last line that a kill cut off."""
    end = 0
    with file.open("r+b") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                stream.truncate(end)
                break
            end += len(line)


class Journal:
    """The photos that are done, in the order in which they were.

    Lines are added as photos are done, and read again one by one: what the folder holds takes no
    memory but for the names. Of several processes each adds to a file of its own, which the first
    one later joins to the others.
    """

    def __init__(self, folder: Path, model: str, settings: dict[str, Any], process: int = 0):
        """Takes the folder, the model's `fingerprint`, settings for JSON, and which process it is.

        Only process 0 may open the journal of a folder, join parts and make files about all photos;
        the others may look at it once that is open.
        """
        self._file = folder / JOURNAL_FILE
        self._own = folder / PART_FILE.format(process) if process else self._file
        self._settings_file = folder / SETTINGS_FILE
        self._made_with = {"model": model, "settings": json.loads(json.dumps(settings))}
        self._places: dict[str, int] = {}

    def open(self, overwrite: bool = False) -> None:
        """Reads what was done, if the folder was made with this model and these settings.

        Args:
            overwrite: nothing of it counts.

        Raises:
            DataError: it was made with others, or the files cannot be read or written.
        """
        with self._explained():
            if overwrite:
                for part in self._parts():
                    part.unlink()
            if overwrite or not self._settings_file.exists():
                self._file.unlink(missing_ok=True)
                replace_text(self._settings_file, json.dumps(self._made_with, indent=1) + "\n")
            else:
                self._compare(json.loads(self._settings_file.read_text(encoding="utf-8")))
            self.join()

    def look(self) -> None:
        """Reads what was done, after process 0 has opened the journal.

        Raises:
            DataError: it was made with other settings, or the files cannot be read.
        """
        with self._explained():
            self._compare(json.loads(self._settings_file.read_text(encoding="utf-8")))
            self._find_places()

    def join(self) -> None:
        """Puts the lines of all processes into one file.

        Raises:
            DataError: the files cannot be read or written.
        """
        with self._explained():
            self._file.touch()
            for file in (self._file, *self._parts()):
                _end_with_a_line(file)
            with self._file.open("ab") as whole:
                for part in self._parts():
                    whole.write(part.read_bytes())
            for part in self._parts():
                part.unlink()
            self._find_places()

    def _parts(self) -> list[Path]:
        return sorted(self._file.parent.glob(PART_FILE.format("*")))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{error.filename}: {error.strerror}; {_MEND}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            files = f"{self._settings_file} or {self._file.name} is damaged"
            raise DataError(f"{files} ({error}): {_MEND}") from error

    def _compare(self, found: dict[str, Any]) -> None:
        folder, settings = self._settings_file.parent, self._made_with["settings"]
        then, now = found["model"], self._made_with["model"]
        if then != now:
            which = f"another model (SHA-256 {then[:8]}…, and now it is {now[:8]}…)"
            raise DataError(f"{folder} holds predictions of {which}: {_MEND}")
        for name in {**settings, **found["settings"]}:
            then, now = found["settings"].get(name), settings.get(name)
            if then != now:
                raise DataError(
                    f"{folder} holds predictions with {name} {then}, and now it is {now}: {_MEND}"
                )

    def _find_places(self) -> None:
        """Where the last line about each photo begins."""
        self._places.clear()
        place = 0
        with self._file.open("rb") as file:
            for line in file:
                self._places[plain_name(json.loads(line)["name"])] = place
                place += len(line)

    def add(self, record: dict[str, Any]) -> None:
        """Writes down that a photo is done.

        Args:
            record: what is to be known of it, with what `done` compares: `name`, `file`, `state`
                and `kinds`.
        """
        with self._explained(), self._own.open("ab") as file:
            if self._own == self._file:
                self._places[plain_name(record["name"])] = file.tell()
            file.write(json.dumps(record).encode() + b"\n")

    def done(self, photo: Input, target: Target, kinds: Sequence[str]) -> bool:
        """Whether all outputs of a photo are there, made of this very file."""
        if plain_name(target.name) not in self._places:
            return False
        record = self._record(target.name)
        return (
            record["file"] == str(photo.path)
            and record["state"] is not None
            and record["state"] == list(photo.state() or ())
            and set(kinds) <= set(record["kinds"])
            and all(file.is_file() for file in target.files)
            and (not record.get("placed") or all(file.is_file() for file in target.beside))
        )

    def records(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """What is known of photos, of those that are done."""
        for name in names:
            if plain_name(name) in self._places:
                yield self._record(name)

    def _record(self, name: str) -> dict[str, Any]:
        with self._file.open("rb") as file:
            file.seek(self._places[plain_name(name)])
            return json.loads(file.readline())
