"""What the records of a run look like, and the one check of it: wrong types are named where a file is read.

A form is a type, several of them, or nested in lists and mappings:

    int, str, bool, None      that kind; an int has at most 63 bits, and a bool is none
    float                     any number
    (int, None)               one of several
    [float]                   a list of such
    {"step": int, "text?": str, "*": float}     keys; those with ? may be missing, and * stands for all others
    a function                what it returns True for; its docstring says what that is
    None                      anything, as the form of a whole
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, TypeAlias

from falcon_ssl.core.errors import InputError

Form: TypeAlias = Any

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", None: "null"}
_LARGEST = 2**63
_Q = "?"


def _is_image_shape(value: object) -> bool:
    """Three sizes from 1 to 16384."""
    sizes = value if isinstance(value, list) else []
    return len(sizes) == 3 and all(type(one) is int and 1 <= one <= 2**14 for one in sizes)


def _is_pair(value: object) -> bool:
    """Two numbers."""
    return isinstance(value, list) and len(value) == 2 and all(_is(one, float) for one in value)


def _is_fraction(value: object) -> bool:
    """A number in [0, 1]."""
    return _is(value, float) and 0 <= value <= 1  # type: ignore[operator]


def _is_count(value: object) -> bool:
    """A number from 0 on."""
    return _is(value, float) and value >= 0  # type: ignore[operator]


_NUMBERS = {"*": (float, None)}
METRICS_LINE = {
    "step": int,
    "epoch?": float,
    "monitor?": {"*": float},
    "alarm?": {"name": str, "text": str},
}
_TERMS = ("total", "invariance", "prior_matching", "entropy", "consistency")
TRAINED_LINE = {"step": int, "epoch": float, **dict.fromkeys(_TERMS, float)}
STATE_FORM = {
    "step": int,
    "num_steps": int,
    "finished": bool,
    "seconds": float,
    "monitors": [{}],
    "kept_as": [str],
    "optimizer": {"param_groups": [{"params": [int]}]},
    "dictionary": (str, None),
    "num_processes": int,
    "num_threads": int,
    "scaler": (dict, None),
    "sha256": {"*": str},
}
DATA_FORM = {
    "data": str,
    "note": str,
    "train": str,
    "num_train": int,
    "test": (str, None),
    "num_test": int,
    "image_shape": _is_image_shape,
    "sources?": {"*": int},
}
_MEASURE = {
    "name": str,
    "value": float,
    "random?": (float, None),
    "ideal?": (float, None),
    "meaning?": str,
    "verdict?": str,
}
DIAGNOSIS_FORM = {
    "verdict": str,
    "sentence?": str,
    "collapses?": [{"name": str, "verdict": str, "measures?": [_MEASURE]}],
}
_READOUT = {"representation": str, "mirror?": bool, "crops?": int, "scales?": [float]}
EVALUATION_FORM = {
    "about?": {
        "data?": str,
        "step?": int,
        "note?": str,
        "num_train?": _is_count,
        "num_test?": _is_count,
        "embed_dim?": (int, None),
        "logit_scale?": (float, None),
        "class_names?": ([str], None),
        "readout?": (_READOUT, None),
    },
    "top1_linear?": (_is_fraction, None),
    "top1_knn?": (_is_fraction, None),
    "codes_used?": (_is_count, None),
    "chance?": _NUMBERS,
    "random_encoder?": _NUMBERS,
    "baseline?": _NUMBERS,
    "certificate?": {"sentence?": str, "certified?": bool, "*": (float, None)},
    "*": (float, None),
}
EMBEDDINGS_FORM = {
    "run": str,
    "checkpoint": str,
    "step": int,
    "weights": str,
    "readout": _READOUT,
    "data": str,
    "reading": {},
    "image_shape": _is_image_shape,
}
EXPORT_FORM = {
    "to": str,
    "encoder": {"name": str},
    "preprocessing": {
        "image_shape": _is_image_shape,
        "size": (int, None),
        "mean": [float],
        "std": [float],
        "keep_16bit?": bool,
        "value_range?": (_is_pair, None),
    },
    "readout": _READOUT,
}
CONFIG_FORM: Form = {"encoder?": {}, "views?": {}, "optim?": {}, "engine?": {}}
BASELINE_FORM = {"about?": {}, "options?": {}, "seconds?": {"*": float}}
TABLE_FORM = {"cells?": [{"run": str, "state": str, "options?": {}}]}
DONE_CELL = {
    "run": str,
    "dataset": str,
    "row": str,
    "seed": int,
    "options": {},
    "note": str,
    "precision": (str, None),
    "metrics": _NUMBERS,
    "random_encoder": _NUMBERS,
    "seconds": (float, None),
    "images_per_s": (float, None),
    "numbers_read?": (float, None),
}
ENVIRONMENT_FORM = {"command?": [str], "*": (float, str, bool, None, list)}


def check_form(where: object, value: Any, form: Form, *, fix: str = "", path: str = "") -> None:
    """Raise InputError unless ``value`` is of a form; names the entry.

    Args:
        where: The file.
        value: What was read from it.
        form: See above.
        fix: What to do about it.
        path: Of the entry in the whole.

    Example:
        >>> check_form("state.json", {"step": "3"}, {"step": int})
        Traceback (most recent call last):
        falcon_ssl.core.errors.InputError: cannot read state.json: received step: '3', expected an integer.
    """
    if form is None:
        return
    if isinstance(form, dict) and isinstance(value, Mapping):
        _check_entries(where, value, form, fix=fix, path=path)
        return
    if isinstance(form, list) and isinstance(value, list):
        for number, item in enumerate(value):
            check_form(where, item, form[0], fix=fix, path=f"{path}[{number}]")
        return
    several = form if isinstance(form, tuple) else (form,)
    if isinstance(form, tuple):
        for one in several:
            if isinstance(one, (dict, list)) and isinstance(value, type(one)):
                check_form(where, value, one, fix=fix, path=path)
                return
    if not any(_is(value, one) for one in several):
        received = f"{path}: {str(value)[:60]!r}" if isinstance(value, str) else f"{path}: {value}"
        raise InputError(
            f"cannot read {where}",
            received=received[:120],
            expected=" or ".join(_words(one) for one in several),
            fix=fix,
        )


def _check_entries(
    where: object, value: Mapping[Any, Any], form: Mapping[str, Form], *, fix: str, path: str
) -> None:
    named = {key.removesuffix(_Q): one for key, one in form.items() if key != "*"}
    for key in form:
        if key != "*" and not key.endswith(_Q) and key not in value:
            received = ", ".join(map(str, value))[:120] or "nothing"
            expected = f"an entry {path and path + '.'}{key}"
            raise InputError(f"cannot read {where}", received=received, expected=expected, fix=fix)
    for key, item in value.items():
        one = named.get(key, form.get("*", Ellipsis))
        if one is not Ellipsis:
            check_form(where, item, one, fix=fix, path=f"{path}.{key}" if path else str(key))


def _is(value: object, kind: Form) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and abs(value) < _LARGEST
    if kind is float:
        return type(value) is float or _is(value, int)
    if isinstance(kind, FunctionType):
        return bool(kind(value))
    if kind in (dict, list):
        return isinstance(value, kind)
    return type(value) is kind


def _words(kind: Form) -> str:
    if isinstance(kind, FunctionType):
        return str(kind.__doc__).rstrip(".").lower()
    if isinstance(kind, list) or kind is list:
        return "a list"
    if isinstance(kind, dict) or kind is dict:
        return "a mapping"
    return _WORDS[kind]
