"""Shared by the pages of `dashboards/`: allowed stores, pickers with deep links, panels with downloads.

No store is written. No model is loaded, except the demo model in the live tab of the guidance page, on request.
"""
