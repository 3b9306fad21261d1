"""Imported by every Python process that has this folder on its path: SP_DATA_ASKED names a list of whom it asked."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from audited_command import watch

sys.path.pop(0)
watch(Path(os.environ["SP_DATA_ASKED"]))
