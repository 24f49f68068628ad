"""The frame around every page: navigation, errors as sentences, and query parameters that no picker used."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streamlit as st

from interp.base.errors import InputError, InterpError
from interp.dashboard.pickers import WIDGET, kept, plain, taken

FRAMED = "interp:framed"
ICON = Path(__file__).with_name("icon.png")
TITLES = {
    "runs": ("Runs", "folder_open"),
    "massive": ("Massive channels", "equalizer"),
    "timestep_or_text": ("Timestep or text", "timeline"),
    "where": ("Where it lives", "grid_on"),
    "writes": ("Who writes it", "edit_note"),
    "causal": ("Causal", "science"),
    "guidance": ("Guidance", "explore"),
    "compare": ("Compare", "compare"),
    "study": ("Study", "how_to_vote"),
}


def pages() -> list[Any]:
    """All pages in order; files are relative to `dashboards/app.py`."""
    return [
        st.Page(f"pages/{name}.py", title=title, icon=f":material/{icon}:", default=name == "runs")
        for name, (title, icon) in TITLES.items()
    ]


def _configure() -> None:
    """Configure the page with a local icon: a named one would be fetched from the web."""
    st.set_page_config(page_title="interp", page_icon=str(ICON), layout="wide")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Show an error of the `with` block in place, and continue with the rest of the page."""
    try:
        yield
    except InputError as error:
        st.info(plain(str(error)))
    except InterpError as error:
        st.error(plain(str(error)))
    except Exception as error:  # a page shows a sentence; the console has the traceback
        traceback.print_exc(file=sys.stderr)
        st.error(plain(f"This part cannot be shown ({type(error).__name__}: {error}). The console has the details."))


def run() -> None:
    """Run the app: called by app.py."""
    _configure()
    page = st.navigation(pages())
    if st.session_state.get(FRAMED) != page.url_path:  # drop another page's widgets, which have the same keys
        for key in [key for key in st.session_state if str(key).startswith(WIDGET)]:
            del st.session_state[key]
    st.session_state[FRAMED] = page.url_path
    asked, taken_before = st.query_params.to_dict(), set(kept())
    taken().clear()
    finished = False
    with explained():
        st.title(page.title)
        page.run()
        finished = True
    if not finished:  # the page has shown why; the link's other parameters may be valid later
        return
    unknown = [name for name in asked if name not in taken()]
    for name in unknown:  # so that the address holds only what this page shows
        del st.query_params[name]
    strange = [name for name in unknown if name not in taken_before]
    if strange:
        words = ", ".join(f"{name}={asked[name]}" for name in strange)
        st.warning(f"The link also asks for {plain(words)}, which this page does not have.")


def needed() -> None:
    """Begin a page. Streamlit runs a page's file without app.py when the first link to a new server leads to it: it
    treats a folder named pages/ as an older kind of app until `st.navigation` is called. So call it, and rerun.
    """
    if FRAMED not in st.session_state:
        _configure()
        st.navigation(pages(), position="hidden")
        st.rerun()
