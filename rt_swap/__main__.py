"""``python -m rt_swap``: the command line."""

import sys

from rt_swap.cli import main

sys.exit(main())
