"""What tells one data set of files from another: its layout, and where it comes from."""

import dataclasses
from collections.abc import Callable

from flaxseg.data.archives import Archive
from flaxseg.data.pairs import PairFolder
from flaxseg.labels import LabelSet


@dataclasses.dataclass(frozen=True)
class FileDataset:
    """A data set that lies in files.

    Attributes:
        name: as in `--data`.
        find: recognises the layout of a folder and pairs its files; reads no picture. Raises
            `DataError` if the folder has no known layout.
        expected: what a folder must hold, for messages.
        archives: the published archives, which may lie in the folder as they are.
        source: where to get the archives, if they have no public address.
        own: the files are the user's own: a zip serves as a folder, and `find` takes the `cache`
            into which it unpacks one and paints masks.
        folders: what the archives extract to; a folder that holds one of them counts as extracted.
        labels: the classes, where they are the same in every folder of it.
    """

    name: str
    find: Callable[..., PairFolder]
    expected: str
    archives: tuple[Archive, ...] = ()
    source: str = ""
    own: bool = False
    folders: tuple[str, ...] = ()
    labels: LabelSet | None = None

    @property
    def downloadable(self) -> bool:
        """Whether all archives have a public address."""
        return bool(self.archives) and all(archive.url for archive in self.archives)
