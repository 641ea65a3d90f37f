"""`accelerate launch -m stillroom.distill ...` and `torchrun -m stillroom.distill ...`."""

import sys

from stillroom.cli import main

if __name__ == "__main__":
    sys.exit(main(["distill", *sys.argv[1:]]))
