"""Timestep or text: do a channel and its gates depend on the step or on the prompt?"""

import streamlit as st

from interp.analysis.attribution import MARGIN
from interp.dashboard import ask, choose, frame
from interp.dashboard.pickers import put

frame.needed()

run = choose.run()
opened = ask.opened(run)
stream = choose.stream(run)
chosen, largest = ask.consensus(ask.massive(opened), stream)
channel = choose.channel(run, chosen, largest)
block, prompt = choose.block(run, stream), choose.prompt(run)

curves, split = st.columns(2)
with curves, frame.explained():
    text = f'run.stats["mean_abs"].sel(block={block}, stream={stream!r}, channel={channel})'
    sizes = opened.cached(text, lambda: run.stats["mean_abs"].sel(block=block, stream=stream, channel=channel).load())
    sizes.draw("curves", "causes.curves", prompt=prompt)
with split, frame.explained():
    lines = list(dict.fromkeys([channel, *chosen[:5]]))
    opened.ask("glance.variance", lines, stream=stream).draw("variance", "causes.variance")
    st.caption("The rest is the variance between rows of one step: prompts, seeds, and their interaction with the step.")

grid, pairs = st.columns(2)
with grid, frame.explained():
    alpha = opened.ask("glance.alpha", channel, stream=stream)

    def go_to(step: int, row: int, gate: str) -> None:
        """Set the block to the clicked cell."""
        put("block", int(row))

    alpha.draw("gates", "causes.gate_grid", clicked=go_to)
    st.caption("Click a cell to show its block in the other plots.")
with pairs, frame.explained():
    found = opened.ask("glance.alpha_and_size", block=block, stream=stream)
    found.draw("alpha-size", "causes.alpha_and_size", selected=chosen)
    st.caption("Correlation does not show that alpha sets the size; that needs an intervention (page Causal).")

shares, ranks = st.columns(2)
reads = run.stats["mean_abs"].nbytes
with shares, frame.explained():
    lines = {"channels": chosen or [channel], "stream": stream, "margin": MARGIN}
    found = ask.result(opened, "attribution", "attribution.decompose", reads=reads, **lines)
    if found is not None:
        shown = channel if channel in found.value["channel"].to_numpy() else int(found.value["channel"][0])
        found.draw("attribution", "causes.attribution", channel=shown)
with ranks, frame.explained():
    found = ask.result(opened, "alignment", "alignment.compare", reads=reads * 3, stream=stream, k=8)
    if found is not None:
        found.draw("alignment", "causes.alignment")
