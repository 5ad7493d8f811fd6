"""What the OpenAPI document allows, and what it forbids, generated from it: no fault, and answers as it says.

Each operation is asked over HTTP with bodies, queries, headers and paths of both kinds. What fits the document may be
refused all the same, with what only the configuration knows (how many numbers a domain's context has, which models
there are); what does not fit it must be. `make test` asks each a few times; the slow form asks more than 10,000 times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bandits.home import Home
from service.gate import OPEN
from service.keys import make_key
from service.pilot import Pilot
from tests.service.conftest import serving
from tests.service.test_chatting import configured, providers
from tests.service.test_document import ROUTES

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
KINDS = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
FEW, MANY = 3, 350  # cases of each kind for each operation; some have fewer
OPERATIONS = [
    (method, path, kind)
    for method, path in sorted(ROUTES)
    for kind in KINDS
    if path not in ("/healthz", "/readyz") or kind is GenerationMode.POSITIVE  # nothing of them can be wrong
]
FITTING = {  # what rules that concern several fields want, which a schema of the document does not say
    "/route": {"prompt": "Why?", "context": None},
    "/feedback": {"vote": 1},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Why?"}]},
}
QUICK = [one for one in OPERATIONS if one[1] != "/pilot/run"]  # a run of the pilot loads scikit-learn


@dataclass
class Door:
    """A service over two models, and what of it a stranger could not guess."""

    schema: Any
    url: str
    session: requests.Session
    key: str  # that asks: it must not end in the middle
    known: dict[str, str]  # values that name something, by the name of parameter or field
    statuses: Counter[int] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def door(tmp_path_factory) -> Iterator[Door]:
    """Ready to be asked, with a decision and a second key to ask about. Any number of runs may wait."""
    home = Home(tmp_path_factory.mktemp("generated") / "home")
    key, second = make_key(home, "acme", "test"), make_key(home, "acme", "second")
    with providers("one", "two") as servers:
        config = configured(servers)
        config.__dict__["pilot"] = config.pilot.model_copy(update={"hosts": ("nowhere.invalid",)})
        with serving(home, config, pilot=Pilot(waiting=1_000_000)) as running, requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {key}"
            made = session.post(f"{running.url}/route", json={"prompt": "Why?"}).json()["decision_id"]
            known = {"decision_id": made, "prefix": second[:12], "name": "made", "model": "auto", "tenant": "acme"}
            known |= {"workspace": "main", "domain": "model_routing", "x-pilotage-workspace": "main"}
            schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
            yield Door(schema, running.url, session, key, known)


def fits(case: Case, door: Door) -> bool:
    """Whether a case may be sent: not one that ends the key that asks, needs a Prefect server, or leaves a run behind
    that the next ones have to wait for.
    """
    if (case.path_parameters or {}).get("prefix") == door.key[:12]:
        return False
    return (case.query or {}).get("mode") not in ("enqueue", "background")


def name_what_is_there(case: Case, door: Door, path: str) -> None:
    """Put what means something in the places of what was made up: else most are refused for the names in them."""
    if path in FITTING:
        case.body.update(FITTING[path])
    for part in (case.path_parameters, case.query, case.headers, case.body):
        if isinstance(part, MutableMapping):
            part.update({name: door.known[name] for name in part if name in door.known})


def ask(door: Door, method: str, path: str, kind: GenerationMode, cases: int) -> None:
    """Send so many cases, and check every answer."""
    operation = door.schema[path][method.upper()]

    @settings(
        max_examples=cases,
        phases=[Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=kind), named=st.sampled_from([True, True, False]))
    def each(case: Case, named: bool) -> None:
        if not fits(case, door):
            return
        if named and kind is GenerationMode.POSITIVE:
            name_what_is_there(case, door, path)
        response = case.call(base_url=door.url, session=door.session, timeout=120)
        door.statuses[response.status_code] += 1
        sent = response.request.headers.get("Authorization")  # what does not fit may be a key, or none
        is_stranger = sent != f"Bearer {door.key}" and not (path in OPEN and sent is None)
        assert (response.status_code == 401) == is_stranger, response.text
        case.validate_response(response, checks=CHECKS)

    each()


@pytest.mark.parametrize(("method", "path", "kind"), QUICK)
def test_each_operation_answers_as_documented(door, method, path, kind):
    """A few cases of each that are right, and of each that are wrong."""
    ask(door, method, path, kind, FEW)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_find_no_fault(door, record_property):
    """Of each operation; how many of each status stands in the report (--junitxml)."""
    run = door.session.get(f"{door.url}/pilot/run", params={"mode": "background"})
    door.known["run_id"], faults = run.json()["run_id"], []
    for method, path, kind in OPERATIONS:
        try:
            ask(door, method, path, kind, MANY)
        except (AssertionError, BaseExceptionGroup) as error:  # the rest is told too
            faults.append(f"{method} {path} {kind.value}: {error!r:.2000}")
    record_property("statuses", dict(door.statuses))
    assert not faults, "\n".join(faults)
    assert door.statuses[200] > 1_000, door.statuses
    assert sum(door.statuses.values()) >= 10_000, door.statuses
