"""Trains a network: `python train.py --model ccnet` is `flaxseg train --model ccnet`."""

import sys

from flaxseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="train.py"))
