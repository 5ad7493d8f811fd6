"""The content pilot: ingest, segment, embed, analysis. Start with state.py, then steps.py, then pilot.py.

Steps are plain functions, State -> update; two runners (langgraph_pilot.py, sequential.py) run the same table of them.
The text inside a document is data: nothing here ever follows it, and whatever is shown of it is a quotation.
"""

from pathlib import Path

EXAMPLE = Path(__file__).parent / "examples" / "standup.vtt"  # a transcript to try the pilot on
