"""A repository of the Hugging Face hub: what it holds, and one commit to it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flaxseg.errors import CheckpointError, ConfigError

CARD = "README.md"

_MENDS = {
    401: "the hub does not take the token: make one that may write ({settings}), then `hf auth "
    "login` or set HF_TOKEN",
    403: "the token may not do this: give one that may write to {owner}, or another owner",
    404: "check the name, and whether the token may see it",
    409: "it is there already, but this token may not read it",
    412: "somebody else has changed it meanwhile: push again",
}
_OTHERWISE = "check the network, and push again"


class Held(NamedTuple):
    """What a repository holds.

    Attributes:
        commit: its newest one; None if there is no such repository.
        private: others do not see it.
        files: the names of all.
        card: the text of README.md; empty if there is none.
    """

    commit: str | None = None
    private: bool = False
    files: frozenset[str] = frozenset()
    card: str = ""


def check_name(repository: str) -> None:
    """Raises a `ConfigError` unless a repository can have this name, or huggingface_hub is missing.

    Nothing is asked of the hub.
    """
    library = _library(repository)
    try:
        library.utils.validate_repo_id(repository)
    except library.errors.HFValidationError as error:
        raise ConfigError(f"{_first_line(error)}: give owner/name") from None
    if "/" not in repository:
        raise ConfigError(
            f"{repository!r} is no name of a repository: give owner/name, the owner being your "
            "name on the hub or your organisation's"
        )


def look(repository: str) -> Held:
    """What is there before a push.

    Raises:
        CheckpointError: there is no token, or the hub cannot be asked.
    """
    library = _library(repository)
    with _in_one_line(repository):
        if library.get_token() is None:
            raise CheckpointError(
                f"{repository} cannot be pushed to without a token: make one that may write "
                f"({_settings()}), then `hf auth login` or set HF_TOKEN"
            )
        api = library.HfApi()
        try:
            about = api.model_info(repository)
        except library.errors.RepositoryNotFoundError:
            return Held()
        files = frozenset(file.rfilename for file in about.siblings or ())
        card = ""
        if CARD in files:
            path = api.hf_hub_download(repository, CARD, revision=about.sha)
            card = Path(path).read_text(encoding="utf-8", errors="replace")
        return Held(about.sha, bool(about.private), files, card)


def push(
    repository: str,
    folder: Path,
    names: Sequence[str],
    *,
    held: Held,
    message: str,
    private: bool = False,
) -> str | None:
    """Uploads files in one commit; whatever else the repository holds stays.

    Args:
        repository: owner/name; it is made if it does not exist.
        folder: where the files lie.
        names: of the files.
        held: what the repository held when it was looked at: if somebody has changed it since,
            nothing is uploaded.
        message: of the commit.
        private: a new repository is not shown to others.

    Returns:
        The address of the commit; None if the repository held the same files already.

    Raises:
        CheckpointError: the hub takes no such files from here.
    """
    library = _library(repository)
    with _in_one_line(repository):
        api = library.HfApi()
        if held.commit is None:
            api.create_repo(repository, private=private or None)  # None: the owner's usual
        added = [library.CommitOperationAdd(name, folder / name) for name in names]
        commit = api.create_commit(
            repository, added, commit_message=message, parent_commit=held.commit
        )
        about = api.model_info(repository, revision=commit.oid)
    lost = set(names) - {file.rfilename for file in about.siblings or ()}
    if lost:
        raise CheckpointError(
            f"{repository} left out {', '.join(sorted(lost))}: take them out of its .gitignore"
        )
    return None if commit.oid == held.commit else commit.commit_url


def _library(repository: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{repository} needs huggingface_hub: pip install 'flaxseg[hub]'"
        ) from error
    return huggingface_hub


def _settings() -> str:
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/settings/tokens"


@contextlib.contextmanager
def _in_one_line(repository: str) -> Iterator[None]:
    """Makes of what huggingface_hub raises a line that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # Its base is the error of the HTTP library below, which differs between releases and is also
    # that of connections.
    connection: Any = HfHubHTTPError.__bases__[0]
    try:
        yield
    except CheckpointError:
        raise
    except OfflineModeIsEnabled:
        raise CheckpointError(
            f"{repository} cannot be pushed to offline: unset HF_HUB_OFFLINE, or give --dry-run"
        ) from None
    except (connection, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and error.__cause__ is not None:
            error = error.__cause__  # of a large file: it says no more than that there was one
        response = getattr(error, "response", None)
        mend = _MENDS.get(getattr(response, "status_code", 0), _OTHERWISE)
        mend = mend.format(settings=_settings(), owner=repository.partition("/")[0])
        raise CheckpointError(
            f"{repository} is not pushed ({_first_line(error)}): {mend}"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = (line.strip(" .") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
