"""Compare: two runs side by side."""

from functools import partial

import pandas as pd
import streamlit as st

from interp.analysis import comparison, glance
from interp.dashboard import ask, cached_stores, choose, frame
from interp.dashboard.explain import explained
from interp.dashboard.panel import opening, panel
from interp.dashboard.pickers import pick, plain
from interp.figures import causes
from interp.figures import channels as figures

frame.needed()

st.title("Compare")
left_run = choose.run("run", "Left run")
runs = [left_run, choose.run("other", "Right run", beside=left_run)]
streams = [str(value) for value in runs[0].summary["stream"].to_numpy() if value in runs[1].summary["stream"].to_numpy()]
with st.sidebar:
    stream = pick("stream", "Stream", streams)
names = [plain(run.path.name) for run in runs]
if runs[0].path == runs[1].path:
    st.info("Both are the same run; pick another one as the right run.")

facts = pd.DataFrame([run.facts() | {"created": str(run.provenance.get("created"))} for run in runs]).T.fillna("")
facts.columns = ["left", "right"]
st.dataframe(facts.rename_axis("what").reset_index(), hide_index=True)

massive = [ask.consensus(ask.massive(run, "robust")[0], stream) for run in runs]
leading = [chosen[0] if chosen else largest for chosen, largest in massive]
ratios = [
    cached_stores.computed(r.path, "ratio", (c, stream), lambda r=r, c=c: glance.ratio(r, c, stream=stream))
    for r, c in zip(runs, leading, strict=True)
]
most = round(max(float(ratio.max()) for ratio in ratios), 2)  # one range of colours for both
parts = zip(("left", "right"), st.columns(2), runs, names, massive, ratios, strict=True)
for side, column, run, name, (chosen, largest), ratio in parts:
    with column, explained():
        channel = chosen[0] if chosen else largest
        said = f"massive: {', '.join(map(str, chosen[:8]))}" if chosen else f"no massive channel; the largest is {largest}"
        st.subheader(name)
        st.caption(said)
        title = f"channel {channel} over the median channel"
        code = [
            *opening(run.path),
            f"values = interp.glance.ratio(run, {channel}, stream={stream!r})",
            f'interp.figures.channels.steps(values, {title!r}, "ratio", most={most})',
        ]
        panel(f"{side}-ratio", partial(figures.steps, ratio, title, "ratio", most=most), ratio, code)
        lines = (chosen or [largest])[:8]
        rough = cached_stores.computed(
            run.path, "rough", (*lines, stream), lambda run=run, lines=lines: glance.profile(run, lines, stream=stream)
        )
        code = [
            *opening(run.path),
            f"found = interp.glance.profile(run, {lines}, stream={stream!r})",
            "interp.figures.channels.layers(found)",
        ]
        panel(f"{side}-layers", partial(figures.layers, rough), rough, code)

with explained():
    if runs[0].path != runs[1].path:
        labels = [run.path.stem for run in runs]
        labels = labels if labels[0] != labels[1] else ["left", "right"]
        paths = ", ".join(f"interp.open_run({str(run.path)!r})" for run in runs)
        call = f"interp.comparison.runs([{paths}], {labels}, stream={stream!r})"
        reads = sum(run.stats["mean_abs"].nbytes * 3 for run in runs)
        made = ask.result(
            runs[0],
            f"comparison with {runs[1].path}",
            {"stream": stream, "changed": cached_stores.stamp(runs[1].path)},
            lambda: comparison.runs(runs, labels, stream=stream),
            reads,
            call,
        )
        if made is not None:
            found = made[0]
            st.subheader("Line by line")
            code = ["import interp", "", f"found = {call}", "interp.figures.causes.comparison(found)"]
            panel("comparison", partial(causes.comparison, found), found, code)
            lines = found[["massive", "trend", "timestep_share", "prompt_share"]].to_dataframe().reset_index()
            st.dataframe(lines, hide_index=True)
