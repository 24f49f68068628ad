"""The dashboard: `streamlit run dashboards/app.py [-- STORE_OR_FOLDER ...]`, or `interp dashboard`."""

from interp.dashboard import frame

frame.run()
