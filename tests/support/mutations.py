"""Damage to files, by a random generator: bytes, values of JSON and YAML, arrays."""

from __future__ import annotations

import copy
import io
import random
import zipfile
from typing import Any

import numpy as np

ODD: list[Any] = [
    None, True, False, 0, 1, -1, -4, 7, 2**31, 2**63, 10**30, 1e5, 1e308, -1e308, 1e-300,
    float("nan"), float("inf"), -float("inf"), "", "x", "null", "1e-8", "x" * 3000, "../../escaped", "/dev/zero",
    "é\u2028\x00", "<script>alert(1)</script>", [], [[]], {}, {"": None}, [None] * 50, {"a": {"b": {"c": [1]}}},
    [1, "2", None], 10**9, 10**12,
]  # fmt: skip


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a nested value."""
    found = []
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            found += places_of(value[key])
    return found


def damaged_value(value: Any, chance: random.Random) -> Any:
    """One or a few entries of a nested value replaced, dropped, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        places = places_of(value)
        if not places or chance.random() < 0.02:
            return copy.deepcopy(chance.choice(ODD))
        container, key = chance.choice(places)
        what = chance.choice(["replace", "replace", "replace", "drop", "rename", "wrap", "number"])
        if what == "replace":
            container[key] = copy.deepcopy(chance.choice(ODD))  # the next change may be inside
        elif what == "drop":
            del container[key]
        elif what == "wrap":
            container[key] = chance.choice([[container[key]], {"x": container[key]}])
        elif what == "rename" and isinstance(container, dict):
            container[chance.choice(["", "extra", "__class__", str(key) + "s"])] = container.pop(
                key
            )
        elif isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
            container[key] = chance.choice([-1, 10, 1e6, 1e-6, 1e12]) * container[key]
    return value


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, pages zeroed, pieces cut out, doubled or put in."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        if not data:
            break
        at, length = chance.randrange(len(data)), chance.choice([1, 4, 64, 4096])
        what = chance.choice(["flip", "flip", "zero", "cut", "head", "double", "put"])
        if what == "flip":
            data[at] ^= 1 << chance.randrange(8)
        elif what == "zero":
            data[at : at + length] = bytes(len(data[at : at + length]))
        elif what == "cut":
            del data[at : at + length]
        elif what == "head":
            del data[at:]
        elif what == "double":
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = chance.randbytes(length)
    return bytes(data)


def damaged_arrays(arrays: dict[str, np.ndarray[Any, Any]], chance: random.Random) -> bytes:
    """An .npz with an array of another kind, shape or name, or a head that lies."""
    arrays = {name: np.array(value) for name, value in arrays.items()}
    name = chance.choice(sorted(arrays))
    value = arrays[name]
    kinds = [
        lambda: value.astype("S4") if value.dtype.kind in "biuf" else value,
        lambda: value.astype(str),
        lambda: value.astype(bool),
        lambda: value.astype(complex) if value.dtype.kind in "biuf" else value,
        lambda: np.array(["2020-01-01"] * max(1, len(value) if value.ndim else 1), "datetime64[D]"),
        lambda: value.reshape(-1),
        lambda: value[..., None],
        lambda: value[:0] if value.ndim else value,
        lambda: np.array(3.0),
        lambda: np.full(value.shape, np.nan),
        lambda: np.full(value.shape, 10**15),
        lambda: np.full(value.shape, -1),
        lambda: np.zeros(value.shape, np.float16),
        lambda: np.full(value.shape, 1e300),
        lambda: value[::-1][: max(1, len(value) // 2)] if value.ndim else value,
        lambda: np.zeros((*value.shape, 3), np.uint8),
    ]
    what = chance.choice(["kind", "kind", "kind", "drop", "rename", "bytes", "lie"])
    if what == "kind":
        arrays[name] = chance.choice(kinds)()
    elif what == "drop":
        del arrays[name]
    elif what == "rename":
        arrays[chance.choice(["", "z/z", "extra", "../z", name + "_X"])] = arrays.pop(name)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    if what == "bytes":
        return damaged_bytes(buffer.getvalue(), chance)
    return lying(buffer.getvalue(), chance) if what == "lie" else buffer.getvalue()


def lying(content: bytes, chance: random.Random) -> bytes:
    """An .npz of which one array is much larger by its head than by its content."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = chance.choice(sorted(members))
    shape = chance.choice(
        ["(1000000000000, 64), }", "(-1, 3), }", "(99, 99, 99, 99), }", "(0,), }"]
    )
    head, _, rest = members[name].partition(b"'shape': ")
    _, end, body = rest.partition(b"}")
    line = shape.encode() if end else b""
    members[name] = head + b"'shape': " + line.ljust(len(rest) - len(body)) + body
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for other, data in members.items():
            archive.writestr(other, data)
    return buffer.getvalue()
