"""Small HDF5 files of arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from aesearch.errors import AesearchError
from aesearch.files.atomic import replacing

if TYPE_CHECKING:
    import h5py


UNSOUND = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)  # of damaged files


def check_plain(group: h5py.Group) -> None:
    """``ValueError`` unless all data lie in the file as they are: HDF5 can name other files, and promise terabytes."""
    import h5py

    size = Path(group.file.filename).stat().st_size
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        found = group[name]
        if isinstance(found, h5py.Group):
            check_plain(found)
        elif found.external or found.is_virtual or found.id.get_create_plist().get_nfilters() or found.nbytes > size:
            raise ValueError(f"{name} is not plain")


def write_arrays(path: Path, arrays: Mapping[str, Any], attributes: Mapping[str, str]) -> None:
    """Write a small HDF5 file, whole or not at all; it is made in memory, as HDF5 does not survive a full disk."""
    import h5py

    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)
    with replacing(path, made.getbuffer().nbytes) as temporary:
        temporary.write_bytes(made.getbuffer())


def read_arrays(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """What `write_arrays` wrote, or those arrays of it; ``AesearchError`` if it is damaged."""
    import h5py

    try:
        with h5py.File(path) as file:
            check_plain(file)
            return {name: file[name][:] for name in names or file}
    except UNSOUND as error:
        raise AesearchError(f"{path} is damaged: make it anew") from error
