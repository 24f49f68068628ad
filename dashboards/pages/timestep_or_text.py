"""Timestep or text: do a channel and its gates depend on the step or on the prompt?"""

from functools import partial

import streamlit as st

from interp.analysis import alignment, attribution, glance
from interp.dashboard import ask, cached_stores, choose, frame
from interp.dashboard.explain import explained
from interp.dashboard.panel import opening, panel
from interp.dashboard.pickers import put
from interp.figures import causes as figures
from interp.figures.channels import step_cells

frame.needed()

st.title("Timestep or text")
run = choose.run()
stream = choose.stream(run)
chosen, largest = ask.consensus(ask.massive(run, "robust")[0], stream)
channel = choose.channel(run, chosen, largest)
block, prompt = choose.block(run, stream), choose.prompt(run)
begin = opening(run.path)

curves, split = st.columns(2)
with curves, explained():
    sizes = cached_stores.computed(
        run.path,
        "sizes",
        (block, stream, channel),
        lambda: run.stats["mean_abs"].sel(block=block, stream=stream, channel=channel).load(),
    )
    code = [
        *begin,
        f'sizes = run.stats["mean_abs"].sel(block={block}, stream={stream!r}, channel={channel})',
        f"interp.figures.causes.curves(sizes, prompt={prompt})",
    ]
    panel("curves", partial(figures.curves, sizes, prompt=prompt), sizes, code)
with split, explained():
    lines = list(dict.fromkeys([channel, *chosen[:5]]))
    found = cached_stores.computed(run.path, "variance", (*lines, stream), lambda: glance.variance(run, lines, stream=stream))
    code = [*begin, f"found = interp.glance.variance(run, {lines}, stream={stream!r})", "interp.figures.causes.variance(found)"]
    panel("variance", partial(figures.variance, found), found, code)
    st.caption("The rest is the variance between rows of one step: prompts, seeds, and their interaction with the step.")

grid, pairs = st.columns(2)
with grid, explained():
    alpha = cached_stores.computed(run.path, "alpha", (channel, stream), lambda: glance.alpha(run, channel, stream=stream))

    def go_to(step: int, row: int) -> None:
        """Set the block to the clicked cell."""
        put("block", int(row))

    def cells(drawn):
        """Marks on every gate's cells."""
        for number in range(alpha.sizes["gate"]):
            step_cells(drawn, alpha.isel(gate=number), row=1, col=number + 1)
        return drawn

    code = [
        *begin,
        f"alpha = interp.glance.alpha(run, {channel}, stream={stream!r})",
        "interp.figures.causes.gate_grid(alpha)",
    ]
    panel("gates", partial(figures.gate_grid, alpha), alpha, code, cells=cells, clicked=go_to)
    st.caption("Click a cell to show its block in the other plots.")
with pairs, explained():
    found = cached_stores.computed(
        run.path, "alpha and size", (block, stream), lambda: glance.alpha_and_size(run, block=block, stream=stream)
    )
    code = [
        *begin,
        f"found = interp.glance.alpha_and_size(run, block={block}, stream={stream!r})",
        f"interp.figures.causes.alpha_and_size(found, selected={chosen})",
    ]
    panel("alpha-size", partial(figures.alpha_and_size, found, selected=chosen), found, code)
    st.caption("Correlation does not show that alpha sets the size; that needs an intervention (page Causal).")

shares, ranks = st.columns(2)
with shares, explained():
    made = ask.result(
        run,
        "attribution",
        {"stream": stream, "margin": attribution.MARGIN, "channels": chosen or [channel]},
        lambda: attribution.decompose(run, chosen or [channel], stream=stream),
        run.stats["mean_abs"].nbytes,
        f"interp.attribution.decompose(run, {chosen or [channel]}, stream={stream!r})",
    )
    if made is not None:
        shown = channel if channel in made[0]["channel"].to_numpy() else int(made[0]["channel"][0])
        code = [*made[1], f"interp.figures.causes.attribution(found, channel={shown})"]
        panel("attribution", partial(figures.attribution, made[0], channel=shown), made[0], code)
with ranks, explained():
    made = ask.result(
        run,
        "alignment",
        {"stream": stream, "k": 8},
        lambda: alignment.compare(run, stream=stream),
        run.stats["mean_abs"].nbytes * 3,
        f"interp.alignment.compare(run, stream={stream!r})",
    )
    if made is not None:
        panel("alignment", partial(figures.alignment, made[0]), made[0], [*made[1], "interp.figures.causes.alignment(found)"])
