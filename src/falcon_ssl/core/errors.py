"""The one shape of error text, apart from the checks so that floors without torch can raise it.

Every complaint says what is wrong, what was received, what was expected and, where that is not clear, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST_NAME = 100  # the search takes the square of the length, and files hold anything


class InputError(ValueError):
    """Bad input from the user: the command line prints it as one line and exits with code 2.

    Args:
        what: What is wrong, without a full stop: "epsilon is too large for 4096 codes".
        received: The offending value, as the user would recognize it.
        expected: What would have been right.
        fix: What to do now, as an imperative: "lower epsilon, or use fewer codes"; "" where that is clear.

    Example:
        >>> str(InputError("C is too small", received=1, expected="C >= 2", fix="add codes"))
        'C is too small: received 1, expected C >= 2; add codes.'
        >>> str(InputError("unknown color", received="'blue'", expected="red or green"))
        "unknown color: received 'blue', expected red or green."
    """

    def __init__(self, what: str, *, received: object, expected: object, fix: str = "") -> None:
        ending = f"; {fix}" if fix else ""
        stop = "" if ending.endswith("?") else "."
        text = f"{what}: received {received}, expected {expected}{ending}{stop}"
        # Libraries write several lines, and files hold anything.
        super().__init__(" ".join(text.splitlines()))


def did_you_mean(word: object, known: Iterable[str], *, before: str = "") -> str:
    """The question, where a word is nearly a known one, as a ``fix``; "" where it is not.

    Example:
        >>> did_you_mean("Epoch", ["data", "epochs"]), did_you_mean("color", ["data"])
        ('did you mean epochs?', '')
    """
    spelled = {one.lower(): one for one in known}
    near = get_close_matches(str(word)[:_LONGEST_NAME].lower(), spelled, n=1)
    return f"did you mean {before}{spelled[near[0]]}?" if near else ""


def one_line(error: BaseException, *, named: bool = False) -> str:
    r"""What another library says, in at most 300 characters of one line; ``named``: after the kind of error.

    Example:
        >>> one_line(KeyError("a")), one_line(ValueError("two\nlines"), named=True), one_line(EOFError())
        ("'a'", 'ValueError: two lines', 'EOFError')
    """
    kind, text = type(error).__name__, " ".join(str(error).split())
    if named:
        text = f"{kind}: {text}"
    return text[:300] or kind


class CollapseError(RuntimeError):
    """A network has collapsed and the user asked to be stopped by that; the command line exits with code 3."""


class FailedRunsError(RuntimeError):
    """Some runs of a grid failed, the others are done; the command line exits with code 1."""


class LostRankError(RuntimeError):
    """Another rank has died or stands still; the command line exits with code 1."""


class StoppedError(KeyboardInterrupt):
    """A signal has stopped a run, which can be resumed; the command line exits with code 75 (EX_TEMPFAIL).

    No Exception, as KeyboardInterrupt is none: what expects broken images must not swallow it.
    """
