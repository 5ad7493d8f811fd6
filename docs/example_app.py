"""An app that asks whichever model pays, and says how it liked the answer.

PILOTAGE_KEY=plt_… python docs/example_app.py "What colour is the sky?"
"""

import os
import sys

import httpx
import openai

URL = os.environ.get("PILOTAGE_URL", "http://127.0.0.1:8080")
KEY = os.environ["PILOTAGE_KEY"]

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY)  # the one line that changes
question = " ".join(sys.argv[1:]) or "What colour is the sky?"

raw = client.chat.completions.with_raw_response.create(
    model="auto", messages=[{"role": "user", "content": question}], user="anna"
)
print(raw.parse().choices[0].message.content)
print(f"{raw.headers['x-pilotage-model']} answered for {raw.headers['x-pilotage-cost-usd']} USD")

report = {"decision_id": raw.headers["x-pilotage-decision-id"], "user": "anna", "vote": 1}
httpx.post(f"{URL}/feedback", json=report, headers={"Authorization": f"Bearer {KEY}"}).raise_for_status()
