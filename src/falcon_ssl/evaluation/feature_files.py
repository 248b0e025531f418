"""Features that are read from files: arrays of anybody, or a table that `embed` wrote."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation.features import ARRAY_NAMES, Features, as_float32, unknown_suffix
from falcon_ssl.records.arrays import read_arrays
from falcon_ssl.records.embeddings import PARQUET, EmbeddingFile

logger = logging.getLogger(__name__)

PROTOTYPES = "prototypes"
OF_EMBED = ("path", "split", "class_name", "probability", "about")  # what `embed` writes besides


def load_features(path: str | Path) -> Features:
    """Read `Features` from ``.npz``, ``.safetensors`` or a ``.parquet`` of `embed`.

    The file holds an array z, and u, code, label and index where they exist. Any real dtype is accepted and converted.
    Arrays of other names are left out, with a log line.

    Raises:
        InputError: If the file is missing, unreadable or of another kind, has no array ``z``, or
            its arrays do not make `Features`.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    if "z" not in arrays:
        expected = (
            "z [N, D], the representations, and where they exist u [N, F], code [N], label [N]"
        )
        raise _no_array("z", path, arrays, expected)
    others = sorted(set(arrays) - {*ARRAY_NAMES, PROTOTYPES, *OF_EMBED})
    if others:
        logger.warning("%s: arrays left out: %s", path.name, ", ".join(others))
    return Features.from_arrays(**{name: arrays[name] for name in ARRAY_NAMES if name in arrays})


def load_prototypes(path: str | Path, *, required: bool = True) -> Tensor | None:
    """Read the array ``prototypes`` [C, F] of a ``.npz`` or ``.safetensors``, as float32.

    Args:
        path: The file.
        required: Whether its absence is an error; otherwise it gives None.

    Raises:
        InputError: If the file is missing, unreadable or of another kind, or has no such array though it is required.
    """
    arrays = _read_arrays(Path(path))
    if PROTOTYPES in arrays:
        return as_float32(arrays[PROTOTYPES])
    if required:
        expected = f"{PROTOTYPES} [C, F], the weights of the head, one code per row"
        raise _no_array(PROTOTYPES, Path(path), arrays, expected)
    return None


def _no_array(name: str, path: Path, arrays: Mapping[str, Any], expected: str) -> InputError:
    received = f"arrays {', '.join(sorted(arrays)) or 'none'}"
    return InputError(f"{path.name} has no array {name}", received=received, expected=expected)


def _read_arrays(path: Path) -> Mapping[str, Any]:
    if path.suffix == PARQUET:
        file = EmbeddingFile(path)
        wanted = {name: "index" if name == "row" else name for name in file.names}
        columns = file.read(*(name for name, new in wanted.items() if new in ARRAY_NAMES))
        return {wanted[name]: values for name, values in columns.items()}
    if not path.is_file():
        expected = "an existing .npz, .safetensors or .parquet"
        raise InputError("no such feature file", received=path, expected=expected)
    if path.suffix == ".npz":
        return read_arrays(path, with_text=True, fix="write it with Features.save or numpy.savez")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
    except Exception as error:  # each reader raises its own kinds; all mean the same to the user
        received = f"{type(error).__name__}: {error}"
        expected = "arrays written by Features.save or numpy.savez, without pickled objects"
        what = f"{path.name} cannot be read"
        raise InputError(what, received=received, expected=expected) from error
    raise unknown_suffix(path, ".npz, .safetensors or .parquet")
