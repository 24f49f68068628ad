"""Pickers that keep their values between pages and stand in the address: a link reopens the same view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

Value = TypeVar("Value")
KEPT = "interp:kept"  # in the session: values by picker's name, for pages on which the widget is not drawn


def kept() -> dict[str, Any]:
    """The session's picked values by name."""
    if KEPT not in st.session_state:
        st.session_state[KEPT] = {}
    found: dict[str, Any] = st.session_state[KEPT]
    return found


def start(name: str, options: Sequence[Value], default: Value, where: str = "") -> Value:
    """The value to begin with: what was picked before, else what the address asks for, else the default. What is not there is
    said, not dropped.
    """
    values = {str(option): option for option in options}
    before = kept().get(name)
    asked = str(before) if before is not None else st.query_params.get(name)
    if asked is None or asked in values:
        return default if asked is None else values[asked]
    what = "was picked" if before is not None else "is what the link asks for"
    st.warning(f"{name} = {plain(str(asked))} {what}, but {where or 'this store'} has {_span(options)}; showing {default}.")
    return default


def pick(
    name: str,
    label: str,
    options: Sequence[Value],
    *,
    default: Value | None = None,
    shown: Callable[[Any], str] = str,
    slider: bool = False,
    where: str = "",
) -> Value:
    """One value of several, by a list or a slider; remembered, and written into the address."""
    options = list(options)
    key = f"pick:{name}"
    if key not in st.session_state or st.session_state[key] not in options:
        st.session_state.pop(key, None)
        st.session_state[key] = start(name, options, options[0] if default is None else default, where)
    value: Value
    if slider and len(options) > 1:
        value = st.select_slider(label, options, key=key, format_func=shown)
    else:
        value = st.selectbox(label, options, key=key, format_func=shown)
    remember(name, value)
    return value


def remember(name: str, value: Any) -> None:
    """Keep a value, and write it into the address."""
    kept()[name] = value
    st.query_params[name] = str(value)


def put(name: str, value: Any) -> None:
    """Set a picker from a callback, such as a click on a heat map."""
    kept()[name] = value
    st.session_state[f"pick:{name}"] = value


def _span(options: Sequence[Any]) -> str:
    texts = [plain(str(option)) for option in options]
    return ", ".join(texts) if len(texts) <= 8 else f"{texts[0]} .. {texts[-1]} ({len(texts)} values)"


def plain(text: str) -> str:
    """A text that markdown shows as it is."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-.!|~$:^&=\"'" else sign for sign in text.replace("\n", " "))
