"""What griffe does not read by itself: a section "Example:", and groups of options, whose fields state their meaning.

griffe knows "Examples:" alone, and of a field ``option(30, "Passes over the training images.")`` only the source.
"""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from typing import Any

import griffe


class SingularExamples(griffe.Extension):
    """Shows that section as what it is, an interactive session."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with everything that was found."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )


class OptionFields(griffe.Extension):
    """Shows default and meaning of every option."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called with a class whose members are known."""
        calls = {
            name: attribute.value
            for name, attribute in cls.attributes.items()
            if isinstance(attribute.value, griffe.ExprCall)
            and str(attribute.value.function) == "option"
        }
        if not calls or cls.docstring is None:
            return
        for name, call in calls.items():
            cls.attributes[name].value = call.arguments[0]
        group = getattr(import_module(cls.module.path), cls.name)
        lines = [
            f"    {field.name}: {field.metadata['text']}"
            for field in dataclasses.fields(group)
            if field.name in calls
        ]
        cls.docstring.value = "\n".join([cls.docstring.value, "", "Args:", *lines])
