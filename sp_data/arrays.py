"""Arrays of the lake and of other programs: .npy files, mapped into memory. Nothing in them is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sp_data.errors import CorruptFile, reason_of


def map_array(path: Path, shown: str = "", cure: str = "make it again") -> npt.NDArray[Any]:
    """The array in a .npy file, memory-mapped. `shown` is the file's name in errors, `cure` what they advise.

    Raises CorruptFile if it is cut or holds anything but numbers; FileNotFoundError, PermissionError.
    """
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        # numpy evaluates the header's text, which raises almost anything: SyntaxError, OverflowError, tokenize's own.
        raise CorruptFile(f"{shown or path} is no whole .npy file ({reason_of(error)}); {cure}") from error
    return array
