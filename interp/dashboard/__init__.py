"""What the pages of `dashboards/` share: which stores may be opened, pickers with deep links, panels with downloads.

No model is loaded and no store is written; the live tab of the guidance page alone loads the demo model, when asked.
"""
