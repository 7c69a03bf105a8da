"""Peak memory of importing a large checkpoint, over the file's size.

    python benchmarks/import_memory.py [--model setr_pup] [--format mmseg] [--no-verify]

Writes the checkpoint of a network at its published size, imports it in a process of its own with
`python -m convert import`, with verification unless told, and reads from Linux how much memory that
process held at once: all of it, and without pages of mapped files, which the system can drop.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import convert
from flaxseg import models

PERIOD = 0.02


def write_checkpoint(name: str, format: str, path: Path) -> None:
    """A network with random weights, as its publisher would store it."""
    config = models.get_config(name)
    model = models.fresh_model(config, rngs=models.params_keys(0))
    convert.save(model, path, format=format)


def peak(command: list[str]) -> tuple[int, int]:
    """Most bytes that a command held at once: resident, and resident without mapped files."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most = {"VmRSS": 0, "RssAnon": 0}

    def watch() -> None:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in most:
                    most[name] = max(most[name], 1024 * int(value.split()[0]))
            time.sleep(PERIOD)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        sys.exit(f"{' '.join(command)} failed")
    watcher.join()
    return most["VmRSS"], most["RssAnon"]


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description="peak memory of an import")
    parser.add_argument("--model", default="setr_pup", help="registry name")
    parser.add_argument("--format", default="mmseg", help="layout of the checkpoint")
    parser.add_argument("--verify", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        write_checkpoint(options.model, options.format, path)
        size = path.stat().st_size
        command = [sys.executable, "-m", "convert", "import", str(path), f"{folder}/out"]
        resident, anonymous = peak(command + ([] if options.verify else ["--no-verify"]))
    print(f"{options.model}, {options.format}: file of {size / 1e9:.2f} GB")
    print(f"resident                      {resident / 1e9:.2f} GB, {resident / size:.2f} times")
    print(f"resident, mapped files apart  {anonymous / 1e9:.2f} GB, {anonymous / size:.2f} times")


if __name__ == "__main__":
    main()
