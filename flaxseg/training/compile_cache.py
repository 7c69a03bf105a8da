"""Compiled programs that outlive the process."""

from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from flaxseg.caches import PROGRAMS, cache_root
from flaxseg.errors import ConfigError
from flaxseg.training.config import TrainConfig


def keep_programs(config: TrainConfig) -> Path | None:
    """Lets JAX keep compiled programs on disk, if the settings ask for it.

    A folder that JAX was given before, such as by $JAX_COMPILATION_CACHE_DIR, stays. The key of a
    program holds the versions of JAX and XLA, the device and the compiler's options.

    Returns:
        The folder, or None if nothing was changed.

    Raises:
        ConfigError: the folder named by `--cache-dir` cannot be written.
    """
    if not config.compile_cache or getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    directory = Path(config.cache_dir).expanduser() if config.cache_dir else cache_root() / PROGRAMS
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if config.cache_dir is None:
            return None  # the default place is a convenience; a read-only home is no mistake
        raise ConfigError(
            f"--cache-dir {directory} cannot be made ({error.strerror}): choose another folder, or "
            "--no-compile-cache"
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(directory))
    compilation_cache.reset_cache()  # it looks for its folder only once
    return directory
