"""``python -m notebook_rpc``."""

import sys

from notebook_rpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
