"""Seconds from the start of a process to the first result, with compiled programs on disk.

    python benchmarks/speed_cold.py NAME BATCH HEIGHT WIDTH infer|train DTYPE

is such a process and prints its parts as JSON. `speed.py --cold` starts it twice with one folder
for JAX's compilation cache and records the second.
"""

import gc
import json
import os
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

BEGIN = time.perf_counter()


def first_result(
    name: str, batch: int, size: tuple[int, int], mode: str, dtype: str
) -> dict[str, float]:
    """Seconds of a fresh process by what they go to, and "total" with the interpreter's start.

    JAX keeps programs that took long to compile, as in `flaxseg train`; short ones are compiled
    again.

    Raises:
        FlaxsegError: a process fails.
    """
    # Not above: what this file imports there, it does not time.
    from flaxseg.errors import FlaxsegError

    script = [sys.executable, __file__, name, str(batch), *map(str, size), mode, dtype]
    with TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PLATFORMS": "cpu"}
        for _ in range(2):
            begin = time.perf_counter()
            ended = subprocess.run(script, env=environment, capture_output=True, text=True)
            total = time.perf_counter() - begin
            if ended.returncode:
                last = (ended.stderr.strip() or "without a word").splitlines()[-1]
                raise FlaxsegError(
                    f"--cold {name}: the process ended with {ended.returncode}: {last}"
                )
    return json.loads(ended.stdout) | {"total": total}


def main() -> None:
    """Gets to the first result."""
    name, batch, height, width, mode, dtype = sys.argv[1:]
    size = int(height), int(width)
    from flaxseg import cli

    gc.set_threshold(cli.NEW_OBJECTS)  # as every command does
    from flax import nnx
    from jax import numpy as jnp

    from flaxseg import models
    from flaxseg.bench.programs import PROGRAMS, random_batch

    found = {"imports": time.perf_counter() - BEGIN}
    begin = time.perf_counter()
    config = models.get_config(name).with_image_size(size)
    model = models.fresh_model(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    found["weights"] = time.perf_counter() - begin
    assert mode in ("infer", "train")
    program = PROGRAMS[mode](model, random_batch(config, int(batch), size))
    found["tracing"] = program.trace_seconds
    found["compiling"] = program.compile_seconds
    begin = time.perf_counter()
    program()
    found["first call"] = time.perf_counter() - begin
    print(json.dumps(found))


if __name__ == "__main__":
    main()
