"""Automations as code: a flow that failed calls a webhook, and a data set that landed starts the nights.

Run again, each is replaced. PILOTAGE_WEBHOOK names the URL to call (left out: no such automation), and
PILOTAGE_WEBHOOK_PRIVATE=1 lets it be one of this machine or of a private network. Whoever has new data emits

    emit_event("pilotage.dataset.landed", {"prefect.resource.id": "..."})
"""

from __future__ import annotations

import os
from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.events.actions import CallWebhook, RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture
from pydantic import SecretStr

import flows  # noqa: F401  (prepares Prefect's environment, so it comes before Prefect)

LANDED = "pilotage.dataset.landed"
FAILURE = "Pilotage: a flow failed"
ARRIVAL = "Pilotage: a data set landed"
NIGHTS = "nights/nightly"
_BLOCK = "pilotage-failures"
_PAYLOAD = (  # tojson: a run is named by people, who may write quotes
    '{"flow": {{ flow.name | tojson }}, "run": {{ flow_run.name | tojson }}, "id": "{{ flow_run.id }}", '
    '"state": {{ flow_run.state.name | tojson }}}'
)


def set_up() -> list[str]:
    """Make the automations on the server that PREFECT_API_URL names, replacing those of the same names; their names."""
    made = [
        Automation(
            name=ARRIVAL,
            description="A data set landed: spend the nights now.",
            trigger=EventTrigger(expect={LANDED}, posture=Posture.Reactive, threshold=1, within=timedelta(0)),
            actions=[
                RunDeployment(source="selected", deployment_id=_deployment(NIGHTS), parameters={}, job_variables={})
            ],
        )
    ]
    if url := os.environ.get("PILOTAGE_WEBHOOK"):
        private = os.environ.get("PILOTAGE_WEBHOOK_PRIVATE") == "1"
        block = Webhook(method="POST", url=SecretStr(url), allow_private_urls=private)
        saved = block.save(_BLOCK, overwrite=True)
        assert isinstance(saved, UUID)  # a coroutine where this is called from a running event loop, which it is not
        made.append(
            Automation(
                name=FAILURE,
                description="A flow run failed or crashed: call the webhook of whoever is on duty.",
                trigger=EventTrigger(
                    expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
                    match={"prefect.resource.id": "prefect.flow-run.*"},
                    posture=Posture.Reactive,
                    threshold=1,
                    within=timedelta(0),
                ),
                actions=[CallWebhook(block_document_id=saved, payload=_PAYLOAD)],
            )
        )
    with get_client(sync_client=True) as client:
        for name in (FAILURE, ARRIVAL):
            for old in client.read_automations_by_name(name):
                client.delete_automation(old.id)
    for automation in made:
        automation.create()
    return [automation.name for automation in made]


def _deployment(name: str) -> UUID:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name).id


if __name__ == "__main__":
    print(f"Automations: {', '.join(set_up())}.")  # noqa: T201
