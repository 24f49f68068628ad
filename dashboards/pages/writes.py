"""Who writes it: the state as a sum of every block's contributions."""

import streamlit as st

from interp.dashboard import ask, choose, frame
from interp.dashboard.pickers import plain

frame.needed()

run = choose.run()
opened = ask.opened(run)
if not run.plan.get("record", {}).get("branches"):
    choose.stop("This run holds no branches (each block's output before alpha multiplies it). Trace it with branches:")
stream = choose.stream(run)
chosen, largest = ask.consensus(ask.massive(opened), stream)
channel = choose.channel(run, chosen, largest)

with frame.explained():
    lines = list(dict.fromkeys([*chosen[:8], channel]))
    reads = run.branches["branch"].nbytes * 2
    found = ask.result(opened, "residual", "residual.decompose", reads=reads, channels=lines, stream=stream)
    if found is not None:
        here = found.value.sel(channel=channel)
        born, writer = int(here["half_written"]), str(here["largest_writer"].item())
        left, middle, right = st.columns(3)
        left.metric("half written by block", born, help="The first block at whose output half of the largest size is reached.")
        middle.metric("largest writer", plain(writer))
        right.metric("largest remainder", f"{float(here['remainder'].max()):.1e}", help="Recorded minus summed: rounding.")
        contribution, factors = st.columns(2)
        with contribution:
            found.draw("residual", "causes.residual", channel=channel, data=here, height=560)
        with factors:
            found.draw("factors", "causes.factors", channel=channel, data=here, height=560)
            st.caption(
                "alpha and branch are each averaged over prompts, so their product can differ from the mean contribution."
            )
