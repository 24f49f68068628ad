"""Errors as sentences on the page: a broken store never shows a traceback."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator

import streamlit as st

from interp.base.errors import InputError, InterpError
from interp.dashboard.pickers import plain


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
