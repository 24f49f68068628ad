"""Pictures as settings of a pipeline: files that a run's plan identifies by their content, resized to the run's size."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.base.errors import InputError, first_line
from interp.base.same_plan import DIGEST


def described(setting: str, given: Any) -> dict[str, str]:
    """A picture as a plan holds it, path and digest, from its path or from a plan."""
    return _loaded(setting, given)[0]


def opened(setting: str, given: Any, height: int, width: int) -> Any:
    """The picture itself, RGB, resized to height x width pixels by bicubic interpolation."""
    from PIL import Image

    return _loaded(setting, given)[1].resize((width, height), Image.Resampling.BICUBIC)


def _loaded(setting: str, given: Any) -> tuple[dict[str, str], Any]:
    """Both; InputError where the file cannot be read, or is not the plan's."""
    known = given if isinstance(given, Mapping) else {"path": given}
    path = str(Path(known["path"]).expanduser().resolve())
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(setting, path, error.strerror or first_line(error)) from None
    found = {"path": path, DIGEST: hashlib.sha256(data).hexdigest()[:32]}
    if known.get(DIGEST, found[DIGEST]) != found[DIGEST]:
        raise InputError(
            f"{setting}: the picture {path} has changed: its {DIGEST} is {found[DIGEST]}, and was {known[DIGEST]}; give the "
            f"earlier picture, or --settings {setting}={path} for a run with this one"
        )
    return found, _decoded(setting, path, data)


def _decoded(setting: str, path: str, data: bytes) -> Any:
    """The picture of a file's bytes, upright, RGB."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    except UnidentifiedImageError:  # its text holds an address in memory
        raise _unreadable(setting, path, "it is of no known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(setting, path, first_line(error)) from None


def _unreadable(setting: str, path: str, reason: str) -> InputError:
    return InputError(
        f"{setting} must be the path of a picture, such as --settings {setting}=cat.png; got {path!r}, which cannot be read: "
        f"{reason}"
    )
