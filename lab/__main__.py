# SPDX-License-Identifier: MIT
"""Entry: python3 -m lab COMMAND (started by ./sloth, which sees to the packages)."""

import sys

from lab.cli import main

sys.exit(main(sys.argv[1:]))
