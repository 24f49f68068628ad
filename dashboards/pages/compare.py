"""Compare: two runs side by side."""

import pandas as pd
import streamlit as st

from interp.analysis import glance
from interp.dashboard import ask, cached_stores, choose, frame
from interp.dashboard.pickers import pick, plain

frame.needed()

left_run = choose.run("run", "Left run")
runs = [left_run, choose.run("other", "Right run", other_than=left_run)]
there = glance.streams(runs[1])
stream = pick("stream", "Stream", [name for name in glance.streams(runs[0]) if name in there])
if runs[0].path == runs[1].path:
    st.info("Both are the same run; pick another one as the right run.")

facts = pd.DataFrame([run.facts() | {"created": str(run.provenance.get("created"))} for run in runs]).T.fillna("")
facts.columns = ["left", "right"]
st.dataframe(facts.rename_axis("what").reset_index(), hide_index=True)

opened = [ask.opened(run) for run in runs]
massive = [ask.consensus(ask.massive(run), stream) for run in opened]
leading = [chosen[0] if chosen else largest for chosen, largest in massive]
ratios = [run.ask("glance.ratio", channel, stream=stream) for run, channel in zip(opened, leading, strict=True)]
most = round(max(float(ratio.value.max()) for ratio in ratios), 2)  # one range of colours for both
parts = zip(("left", "right"), st.columns(2), opened, massive, leading, ratios, strict=True)
for side, column, run, (chosen, largest), channel, ratio in parts:
    with column, frame.explained():
        said = f"massive: {', '.join(map(str, chosen[:8]))}" if chosen else f"no massive channel; the largest is {largest}"
        st.subheader(plain(run.path.name))
        st.caption(said)
        ratio.draw(f"{side}-ratio", "channels.steps", f"channel {channel} over the median channel", "ratio", most=most)
        rough = run.ask("glance.profile", (chosen or [largest])[:8], stream=stream)
        rough.draw(f"{side}-layers", "channels.layers")

with frame.explained():
    if runs[0].path != runs[1].path:
        labels = [run.path.stem for run in runs]
        labels = labels if labels[0] != labels[1] else ["left", "right"]
        both = f"[{', '.join(f'interp.open_run({str(run.path)!r})' for run in runs)}]"
        call = ask.Call(
            "comparison.runs", (ask.Made(runs, both, ("import interp", ""), runs[0].path), labels), {"stream": stream}
        )
        reads = sum(run.stats["mean_abs"].nbytes * 3 for run in runs)
        name, changed = f"comparison with {runs[1].path}", cached_stores.stamp(runs[1].path)
        found = ask.on_request(name, call.arguments[0], call, reads, changed)
        if found is not None:
            st.subheader("Line by line")
            found.draw("comparison", "causes.comparison")
            lines = found.value[["massive", "trend", "timestep_share", "prompt_share"]].to_dataframe().reset_index()
            st.dataframe(lines, hide_index=True)
