"""Which data folder `mierctl` looks after, where none is named."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_DATA = Path(os.environ.get("MIER_DATA", "mier-data"))
"""As for `mier-serve`."""
