"""Shows the section "Example:" of a docstring as what it is, an interactive session; griffe knows "Examples:" alone."""

from __future__ import annotations

import re
from typing import Any

import griffe


class SingularExamples(griffe.Extension):
    """Gives the section its plural."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with everything that was found."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )
