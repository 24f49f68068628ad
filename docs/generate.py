"""A hook of mkdocs: writes tables that the package knows into the pages."""

from __future__ import annotations

from typing import Any

from interp.models import skeleton

SUPPORT = "<!-- support -->"


def on_page_markdown(markdown: str, **given: Any) -> str:
    """A page with the models that can be traced in place of the mark."""
    return markdown.replace(SUPPORT, skeleton.page(skeleton.support())) if SUPPORT in markdown else markdown
