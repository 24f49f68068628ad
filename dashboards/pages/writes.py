"""Who writes it: the state as a sum of every block's contributions."""

from functools import partial

import streamlit as st

from interp.analysis import residual
from interp.dashboard import ask, choose, frame
from interp.dashboard.explain import explained
from interp.dashboard.panel import panel
from interp.dashboard.pickers import plain
from interp.figures import causes as figures

frame.needed()

st.title("Who writes it")
run = choose.run()
if not run.plan.get("record", {}).get("branches"):
    st.info("This run holds no branches (each block's output before alpha multiplies it). Trace it with branches:")
    st.code(choose.TRACE_IT, language="bash")
    st.stop()
stream = choose.stream(run)
chosen, largest = ask.consensus(ask.massive(run, "robust")[0], stream)
channel = choose.channel(run, chosen, largest)

with explained():
    lines = list(dict.fromkeys([*chosen[:8], channel]))
    made = ask.result(
        run,
        "residual",
        {"stream": stream, "channels": lines},
        lambda: residual.decompose(run, lines, stream=stream),
        run.branches["branch"].nbytes * 2,
        f"interp.residual.decompose(run, {lines}, stream={stream!r})",
    )
    if made is not None:
        found, begin = made
        here = found.sel(channel=channel)
        born, writer = int(here["birth"]), str(here["largest_writer"].item())
        left, middle, right = st.columns(3)
        left.metric("born in block", born, help="The first block at whose output half of the largest size is reached.")
        middle.metric("largest writer", plain(writer))
        right.metric("largest remainder", f"{float(here['remainder'].max()):.1e}", help="Recorded minus summed: rounding.")
        contribution, factors = st.columns(2)
        with contribution:
            code = [*begin, f"interp.figures.causes.residual(found, channel={channel})"]
            panel("residual", partial(figures.residual, found, channel=channel), here, code, height=560)
        with factors:
            code = [*begin, f"interp.figures.causes.factors(found, channel={channel})"]
            panel("factors", partial(figures.factors, found, channel=channel), here, code, height=560)
            st.caption(
                "alpha and branch are each averaged over prompts, so their product can differ from the mean contribution."
            )
