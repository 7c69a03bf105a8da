"""Settings from a YAML file."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from flaxseg.errors import ConfigError, did_you_mean
from flaxseg.training.config import TrainConfig, flag


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-4 is a number, and a key is there once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Refuses a second value of a key, which would silently replace the first."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"a second {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config_file(path: str) -> dict[str, Any]:
    """The settings of a YAML file by field name, each validated by itself.

    Args:
        path: file of one mapping from settings to values; "image-size" is "image_size".

    Raises:
        ConfigError: an unreadable file, an unknown setting with the close ones, or a value that
            does not fit, each with the file's path.
    """
    known = [field.name for field in fields(TrainConfig) if field.name != "config"]
    settings = {}
    for key, value in _read_mapping(path).items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ConfigError(
                f"--config {path}: unknown setting {key!r}{did_you_mean(name, known)}"
            )
        settings[name] = tuple(value) if isinstance(value, list) else value
        try:
            TrainConfig(**{name: settings[name]}).validate()
        except ConfigError as error:
            words = str(error).replace(flag(name), str(key), 1)
            raise ConfigError(f"--config {path}: {words}") from None
    return settings


def _read_mapping(path: str) -> dict[Any, Any]:
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {path} is no text file: {error}") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"--config {path}{where}: {problem}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path} must hold lines such as 'lr: 0.01', got {values!r:.60}")
    return values
