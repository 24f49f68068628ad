"""Runs: the stores under the folders, their progress and provenance."""

import json

import streamlit as st

from interp.dashboard import cached_stores, choose, frame, pictures, roots
from interp.dashboard.pickers import pick, plain

frame.needed()

folders = ", ".join(plain(str(root)) for root in choose.roots_given())
stores = choose.stores()
if not stores:
    choose.stop(f"No store is under {folders} yet. To make one with the demo model:")
st.caption(f"{len(stores)} {'store' if len(stores) == 1 else 'stores'} under {folders}.")
table = roots.overview(stores)
st.dataframe(
    table,
    hide_index=True,
    column_config={
        "done": st.column_config.ProgressColumn("done", min_value=0.0, max_value=1.0, format="percent"),
        "created": st.column_config.TextColumn("created (UTC)"),
    },
)
first = min(stores, key=lambda store: (bool(store.problem), store.kind != "trace")).name
name = pick("store", "Store", [store.name for store in stores], default=first, where="the folder")
store = next(store for store in stores if store.name == name)
st.header(plain(store.name))
if store.problem:
    st.error(f"{plain(store.name)} cannot be opened: {plain(store.problem)}.")
    st.stop()

with frame.explained():
    source = cached_stores.run(store.path) if store.kind == "trace" else cached_stores.experiment(store.path)
    facts = {**source.facts(), "created": source.provenance.get("created", "unknown")}
    left, right = st.columns([3, 2])
    left.table({"what": list(facts), "value": [plain(str(value)) for value in facts.values()]}, hide_index=True)
    with right:
        st.caption("provenance")
        st.json(json.dumps(source.provenance, default=str), expanded=False)
        st.caption("plan")
        st.json(json.dumps(source.plan, default=str), expanded=False)
        st.caption("Open it in Python:")
        opener = "open_run" if store.kind == "trace" else "open_experiment"
        st.code(f"import interp\n\nsource = interp.{opener}({str(store.path)!r})\nsource", language="python")

with frame.explained():
    st.subheader("Pictures")
    if store.kind == "trace":
        shown = source.images["image"].isel(prompt=slice(0, 24))
        texts = [f"{row}: {text}" for row, text in zip(shown["prompt"].to_numpy(), source.prompts, strict=False)]
        images = list(shown.to_numpy())
    else:
        rows = [row for row in range(source.done.shape[0]) if source.done[row, 0]][:24]
        words = source.axes["prompt_text"].to_numpy()
        images = [source.picture(row, 0) for row in rows] if source.has_pictures else []
        texts = [f"{row}: {words[row]}" for row in rows]
    if images:
        pictures.strip(images, texts)
        total = source.rows_done if store.kind == "trace" else int(source.done[:, 0].sum())
        if total > len(images):
            st.caption(f"The first {len(images)} of {total}.")
    else:
        st.caption("No row is done yet." if store.kind == "trace" else "This experiment keeps no pictures.")
