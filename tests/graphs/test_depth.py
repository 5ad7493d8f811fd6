"""How deep a document is read: decided only where it is configured, recorded once for each, and no word is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.config import load_config, parse_config
from bandits.home import Home
from bandits.record.port import rows
from graphs import EXAMPLE
from graphs.audit import Counters
from graphs.depth import READ, choosing, shortened, wanted
from graphs.ingest import read
from graphs.passage import Cue, Document
from graphs.pilot import run_pilot
from graphs.state import PilotRequest
from graphs.steps import table


def config(arms=tuple(READ), features="text-1", **more):
    domain = {
        "arms": [{"name": name, "model": name, "usd_per_request": 1e-5} for name in arms],
        "features": features,
        "budget_usd_per_request": 1e-3,
    }
    return parse_config({"tenants": {"acme": {} | more}, "domains": {"content_analysis": domain}}, "test")


@pytest.mark.parametrize(
    "arms", [("skim", "deep"), ("skim", "standard", "deep", "abyss"), ("small", "middle", "large")]
)
def test_without_exactly_these_arms_nothing_is_decided(arms, tmp_path):
    """Nor without features of text, nor without the domain."""
    for one in (config(arms), config(features="vector-3"), load_config()):
        assert not wanted(one)
        with choosing(Home(tmp_path / "home"), one, "acme", "main") as choose:
            assert choose is None
    assert not (tmp_path / "home").exists()
    assert wanted(config())


def test_each_document_is_decided_on_once_and_read_as_far(tmp_path):
    """The decisions are in the record, with the tokens that the report shows; the trail is that of any run."""
    home, settings = Home(tmp_path), config()
    long = ("long.txt", "The deploy failed on Friday. " * 400)
    request = PilotRequest("acme", "main", [EXAMPLE, long], enable_embed=False)
    with choosing(home, settings, "acme", "main") as choose:
        result = run_pilot(request, orchestrator="sequential", steps=table(None, choose), counters=Counters())
    with home.open_record() as record:
        decisions = [row.entry for row in rows(record)]
    depths = result.ingest["depths"]

    assert result.status == "ok"
    assert [one.arm for one in decisions] == [one["depth"] for one in depths]
    assert [one["decision_id"][:32] for one in depths] == [one.id for one in decisions]
    assert [one["propensity"] for one in depths] == [one.propensity for one in decisions]
    assert [one["characters"] for one in depths] == [one["characters"] for one in result.ingest["documents"]]


def test_where_no_money_is_left_it_is_skimmed_and_nothing_is_recorded(tmp_path):
    """The content does not go without a reading for want of a decision."""
    home, settings = Home(tmp_path), config(caps={"usd_per_day": 1e-9})
    with choosing(home, settings, "acme", "main") as choose:
        depth = choose(read(EXAMPLE))
    with home.open_record() as record:
        assert record.head() == 0
    assert (depth.depth, depth.decision_id) == ("skim", None)


words = st.lists(st.text("abcdefghij", min_size=1, max_size=12), min_size=1, max_size=1_500)


@settings(deadline=None)  # the first one imports
@given(words, st.sampled_from(list(READ)), st.booleans())
def test_what_is_read_is_the_start_in_whole_words_or_cues(said, depth, spoken):
    """No longer than the depth allows, and no shorter than by one word or cue."""
    cues = tuple(Cue(word, float(i), float(i + 1)) for i, word in enumerate(said)) if spoken else ()
    whole = Document("id", "a.txt", "webvtt" if spoken else "text", ("\n" if spoken else " ").join(said), cues)
    part, most = shortened(whole, depth), READ[depth]

    assert part.id == whole.id
    assert whole.text.startswith(part.text)
    assert part.text.split() == said[: len(part.text.split())]
    assert part.cues == whole.cues[: len(part.cues)]
    if most is None or len(whole.text) <= most:
        assert part == whole
    else:
        assert most - 13 <= len(part.text) <= most
