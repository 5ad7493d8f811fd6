"""Facts about repeats: an event is heard once, and a change of mind is another event."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.record.memory import MemoryRecord
from bandits.record.repeats import news
from bandits.testing.ports import at_once, sample_decision, sample_outcome
from bandits.types import Outcome


def heard(said, **names):
    """What of the reports, each a dict of measures, is recorded, one after the other."""
    record = MemoryRecord()
    record.append(sample_decision("a"))
    kept = []
    for measures in said:
        outcome = sample_outcome("a", **{"quality": None, "cost_usd": None} | measures)
        new = news(outcome, record.outcomes("a"), **names)
        if new is not None:
            record.append(new)
            kept.append(measures)
    return kept


@given(st.lists(st.sampled_from([-1, 1]), max_size=12))
def test_votes_count_once_per_change(votes):
    """What is kept is the sequence without its immediate repetitions."""
    expected = [vote for i, vote in enumerate(votes) if i == 0 or votes[i - 1] != vote]
    assert heard([{"vote": vote} for vote in votes]) == [{"vote": vote} for vote in expected]


measures = st.fixed_dictionaries(
    {}, optional={"vote": st.sampled_from([-1, 1]), "quality": st.sampled_from([0.0, 0.5]), "cost_usd": st.just(1e-5)}
).filter(bool)


@given(st.lists(measures, max_size=10))
def test_a_report_is_compared_with_the_last_of_its_kind(said):
    """Another kind in between changes nothing: a cost does not make an old vote new."""
    last, expected = {}, []
    for one in said:
        if last.get(frozenset(one)) != one:
            expected.append(one)
        last[frozenset(one)] = one
    assert heard(said) == expected


def test_an_event_is_known_by_its_name_its_kind_and_its_value():
    """Reported again it has the same key; its other parts, and other events that say the same, have others."""
    vote, cost = sample_outcome("a", quality=None, cost_usd=None, vote=1), sample_outcome("a", quality=None)
    one = news(vote, [], event="click-7").key
    assert one == news(dataclasses.replace(vote, time=9.0), [vote], event="click-7").key
    others = {news(cost, [], event="click-7").key, news(vote, [], event="click-8").key, news(vote, []).key}
    assert len(others | {one}) == 4
    assert "click" not in one


def test_a_request_is_known_by_its_name_whatever_it_says():
    """As Idempotency-Key means it."""
    vote, cost = sample_outcome("a", quality=None, cost_usd=None, vote=1), sample_outcome("a")
    assert news(vote, [], request="r-1").key == news(cost, [vote], request="r-1").key
    assert news(vote, [], request="r-1").key != news(vote, [], request="r-2").key
    assert news(vote, [], request="r-1").key != news(vote, [], event="r-1").key


def test_what_a_process_reported_itself_is_no_repeat():
    """The gateway's own measurement has no key: a user's report of the same is another's word."""
    own = sample_outcome("a", quality=0.5, cost_usd=None, source="replay")
    assert isinstance(news(sample_outcome("a", quality=0.5, cost_usd=None), [own]), Outcome)


@pytest.mark.parametrize("values", [[1] * 16, [1, -1] * 8])
def test_of_the_same_at_once_one_is_recorded(values):
    """All were judged against the same past: equal ones share a key, different ones do not."""
    record = MemoryRecord()
    record.append(sample_decision("a"))
    judged = [news(sample_outcome("a", quality=None, cost_usd=None, vote=value), []) for value in values]
    refused: list[str] = []

    def work(name):
        try:
            record.append(judged[int(name)])
        except Exception:
            refused.append(name)

    at_once(work, map(str, range(len(values))))
    assert sorted(outcome.vote for outcome in record.outcomes("a")) == sorted(set(values))
    assert len(refused) == len(values) - len(set(values))
