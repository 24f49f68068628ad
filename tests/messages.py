"""What a message must name, whatever its wording: the field, the value given, and what to type next."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest


def names(text: str, *words: object) -> list[str]:
    """Those of `words` that `text` does not contain; a word of letters and digits must stand by itself."""
    return [str(word) for word in words if not _stands_in(str(word), text)]


def _stands_in(word: str, text: str) -> bool:
    before, after = (r"(?<!\w)" if word[:1].isalnum() else ""), (r"(?!\w)" if word[-1:].isalnum() else "")
    return re.search(before + re.escape(word) + after, text) is not None


@contextlib.contextmanager
def refused(
    error: type[BaseException], field: object, *value_and_hint: object
) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """The block must raise `error`, in one line that names the field, the value and the hint."""
    with pytest.raises(error) as caught:
        yield caught
    message = str(caught.value)
    assert "\n" not in message, message
    missing = names(message, field, *value_and_hint)
    assert not missing, f"{missing} missing in: {message}"


@contextlib.contextmanager
def warned(warning: type[Warning], field: object, *value_and_hint: object) -> Iterator[None]:
    """The block must warn, and one of its warnings names the field, the value and the hint."""
    with pytest.warns(warning) as caught:
        yield
    messages = [str(one.message) for one in caught]
    assert any(not names(message, field, *value_and_hint) for message in messages), messages
