"""The dashboard: `streamlit run dashboard/app.py`, or better `pilotage dashboard`, which sets the right flags."""

from __future__ import annotations

import streamlit as st

from dashboard.frame import calm, choose

# No page icon: Streamlit would fetch one from a font server.
st.set_page_config(page_title="Pilotage", layout="wide")
page = st.navigation(
    [
        st.Page("today.py", title="Today", default=True),
        st.Page("quality.py", title="Cost and quality", url_path="quality"),
    ],
    position="top",
)
with calm():
    choose()
    page.run()
