"""Lets this run and its child processes cache compiled modules in the environment, also under PYTHONDONTWRITEBYTECODE.

Without them each of the many processes of the tests compiles every library anew: seconds of work for a start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.dont_write_bytecode:
    directory = str(Path(sys.prefix) / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = directory
    sys.pycache_prefix = directory
    sys.dont_write_bytecode = False
