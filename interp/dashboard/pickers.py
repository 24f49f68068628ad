"""Pickers that keep their values between pages and in the address: a link reopens the same view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

Value = TypeVar("Value")
KEPT = "interp:kept"  # session key: values by picker name, for pages on which the widget is not drawn
TAKEN = "interp:taken"
WIDGET = "pick:"  # prefix of pickers' keys
SAID = "interp:said"  # session key: a link's unavailable value, until another value is picked


def kept() -> dict[str, Any]:
    """The session's picked values by name."""
    found: dict[str, Any] = st.session_state.setdefault(KEPT, {})
    return found


def taken() -> set[str]:
    """Names of the pickers drawn in this run of the page."""
    found: set[str] = st.session_state.setdefault(TAKEN, set())
    return found


def start(name: str, options: Sequence[Value], default: Value, where: str = "") -> tuple[Value, str]:
    """The initial value: the last picked one, else the address's, else the default; and a message if that value is
    not available.
    """
    values = {str(option): option for option in options}
    before = kept().get(name)
    asked = str(before) if before is not None else st.query_params.get(name)
    if asked is None:
        return default, ""
    if asked in values:
        return values[asked], ""
    what = "was picked" if before is not None else "is what the link asks for"
    has = where or "this store"
    return default, f"{name} = {plain(asked)} {what}, but {has} has {_span(options)}; showing {plain(str(default))}."


def pick(
    name: str,
    label: str,
    options: Sequence[Value],
    *,
    default: Value | None = None,
    shown: Callable[[Any], str] = str,
    slider: bool = False,
    where: str = "",
    sidebar: bool = True,
) -> Value:
    """Pick one of several values with a list or a slider, in the sidebar; it is remembered and written into the address.

    With `sidebar=False` it is where the page is being written.
    """
    place = st.sidebar if sidebar else st
    options = list(options)
    key, said = f"{WIDGET}{name}", st.session_state.setdefault(SAID, {})
    if key not in st.session_state or st.session_state[key] not in options:
        st.session_state.pop(key, None)
        begin, note = start(name, options, options[0] if default is None else default, where)
        st.session_state[key] = begin
        if note:
            said[name] = begin, note
    if name in said and said[name][0] == st.session_state[key]:
        place.warning(said[name][1])
    else:
        said.pop(name, None)
    draw = place.select_slider if slider and len(options) > 1 else place.selectbox
    value: Value = draw(label, options, key=key, format_func=shown)
    remember(name, value)
    return value


def remember(name: str, value: Any) -> None:
    """Store a value in the session and in the address."""
    taken().add(name)
    kept()[name] = value
    st.query_params[name] = str(value)


def put(name: str, value: Any) -> None:
    """Set a picker from a callback, such as a click on a heat map."""
    kept()[name] = value
    st.session_state[f"{WIDGET}{name}"] = value


def _span(options: Sequence[Any]) -> str:
    texts = [plain(str(option)) for option in options]
    return ", ".join(texts) if len(texts) <= 8 else f"{texts[0]} .. {texts[-1]} ({len(texts)} values)"


def plain(text: str) -> str:
    """Escape a text for markdown."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-.!|~$:^&=\"'" else sign for sign in text.replace("\n", " "))
