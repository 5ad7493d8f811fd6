"""Facts about signals: what counts as asking again, whose it is, and that only the domain says what it is worth."""

from __future__ import annotations

import numpy as np
import pytest

from bandits.conversation import Talk
from bandits.errors import ShapeError
from bandits.features import Request, Turn, context
from bandits.record.memory import MemoryRecord
from bandits.record.sql import SqlRecord
from bandits.rewards import reward
from bandits.router import Router
from bandits.settings.reward import RewardConfig
from bandits.signals import notice, said
from bandits.types import SIGNALS, Outcome, Scope
from bandits.warehouse.loading import load, read_feedback
from tests.logs import domain

SCOPE = Scope("acme", "main", "model_routing")
T = 1_790_000_000.0
QUESTION = "Why is the sky blue in the evening?"
OTHER = "How long does it take to boil an egg?"


class Chat:
    """One conversation with a router, as an app sends it."""

    def __init__(self, record=None, features="text-1", user="ann", **config) -> None:
        self.now = T
        self.record = MemoryRecord() if record is None else record
        config = domain(1.0, **config).model_copy(update={"features": features})
        self.router = Router(SCOPE, config, self.record, np.random.default_rng(0), lambda: self.now)
        self.user = user

    def ask(self, text, *before, answered=True, after=5.0, user=None, **others):
        """Ask, `after` seconds after the last; what was noticed, and the decision."""
        self.now += after
        user = self.user if user is None else user
        request = Request(text, tuple(Turn(role, said_) for role, said_ in before), self.now)
        known = context(request, self.router.domain.features)
        talk = Talk("c", **others)
        noticed = notice(self.router, request, known, talk, user)
        decision = self.router.decide(known, user, conversation=talk)
        if answered:
            came = Outcome(decision.id, self.now, SCOPE, cost_usd=1e-4, latency_s=0.5, source="openai", result="stop")
            self.router.report(came)
        return noticed, decision


def source(noticed):
    """What was noticed, if anything was."""
    return None if noticed is None else noticed.source


EARLIER = (("user", QUESTION), ("assistant", "Rayleigh scattering."))


class TestWhatCounts:
    @pytest.mark.parametrize("features", ["text-1", "text-2"])
    @pytest.mark.parametrize(
        ("text", "before", "expected"),
        [
            (QUESTION, EARLIER, "reask"),
            ("why is the  SKY blue in the evening?", EARLIER, "reask"),
            ("So why is the sky blue in the evening?", EARLIER, "reask"),
            (QUESTION, (), "regenerate"),
            (OTHER, EARLIER, None),
            (OTHER, (), None),
            ("Why is the sea blue in the morning?", EARLIER, None),
        ],
    )
    def test_the_same_question_after_its_answer_is_asked_again_the_same_request_is_regenerated(
        self, features, text, before, expected
    ):
        """Case and whitespace apart; another question is neither."""
        chat = Chat(features=features)
        _, first = chat.ask(QUESTION)
        noticed, _ = chat.ask(text, *before)
        assert source(noticed) == expected
        assert expected is None or noticed.decision_id == first.id

    def test_a_regenerated_later_turn_is_of_that_turn(self):
        """Not of the draw: there it is said once more, as all that is said of turns."""
        chat = Chat()
        _, first = chat.ask(QUESTION)
        _, second = chat.ask(OTHER, *EARLIER)
        noticed, _ = chat.ask(OTHER, *EARLIER)
        assert (source(noticed), noticed.decision_id) == ("regenerate", second.id)
        assert [o.source for o in chat.record.outcomes(first.id)] == ["openai", "regenerate"]

    @pytest.mark.parametrize("text", ["go on", "yes", "No no no no"])
    def test_few_words_are_said_twice_by_anybody(self, text):
        """And mean nothing by it."""
        chat = Chat()
        chat.ask(text)
        assert chat.ask(text, ("user", text), ("assistant", "…"))[0] is None
        assert chat.ask(text)[0] is None

    @pytest.mark.parametrize(("after", "expected"), [(60.0, "reask"), (60.1, None)])
    def test_only_soon_after_the_answer(self, after, expected):
        """As the domain says how soon: 60 s."""
        chat = Chat()
        chat.ask(QUESTION)
        assert source(chat.ask(QUESTION, *EARLIER, after=after)[0]) == expected

    def test_the_app_may_say_so_at_any_time(self):
        """It has a button."""
        chat = Chat()
        chat.ask("go on")
        assert source(chat.ask("go on", after=600.0, regenerate=True)[0]) == "regenerate"

    def test_whoever_got_no_answer_complains_of_none(self):
        """Clients send again by themselves what failed."""
        chat = Chat()
        _, first = chat.ask(QUESTION, answered=False)
        chat.router.report(Outcome(first.id, chat.now, SCOPE, quality=0.0, latency_s=1.0, result="failed:server"))
        assert chat.ask(QUESTION)[0] is None

    def test_only_of_the_same_person(self):
        """What ben asks says nothing of what ann was answered."""
        chat = Chat()
        chat.ask(QUESTION)
        assert chat.ask(QUESTION, user="ben")[0] is None

    def test_of_nobody_in_particular_a_conversation_that_begins_says_nothing(self):
        """It may be somebody else's, who says the same."""
        chat = Chat(user="")
        chat.ask(QUESTION, begins=True)
        assert chat.ask(QUESTION, begins=True)[0] is None
        assert source(chat.ask(QUESTION, *EARLIER)[0]) == "reask"

    def test_a_context_that_the_app_brings_says_nothing_of_words(self):
        """Two requests of one vector may be two questions."""
        chat = Chat()
        known = np.zeros(2, np.float32)
        router = Router(SCOPE, domain(1.0), MemoryRecord(), np.random.default_rng(0), lambda: T)
        before = router.decide(known, "ann", conversation="c")
        assert said(Request(QUESTION), known, before) is None
        assert said(Request(QUESTION), chat.ask(QUESTION)[1].context, chat.ask(QUESTION)[1]) == "regenerate"


class TestOnce:
    def test_each_is_recorded_once_a_decision(self, tmp_path):
        """However often the request comes in, from whichever process; the record refuses the second."""
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            chat = Chat(record)
            _, first = chat.ask(QUESTION)
            request = Request(QUESTION, tuple(Turn(*turn) for turn in EARLIER), chat.now + 1.0)
            known = context(request, "text-1")
            found = [notice(chat.router, request, known, "c", "ann") for _ in range(3)]
            assert [source(one) for one in found] == ["reask", None, None]
            kept = [o for o in record.outcomes(first.id) if o.source in SIGNALS]
            assert kept == [found[0]]

    def test_it_tells_of_the_arm_that_answered(self):
        """A stand-in's bad answer is not the fault of the arm drawn."""
        chat = Chat()
        _, first = chat.ask(QUESTION, answered=False)
        failed = Outcome(first.id, chat.now, SCOPE, quality=0.0, latency_s=1.0, result="failed:server")
        chat.router.report(failed, Outcome(first.id, chat.now, SCOPE, latency_s=1.0, arm="middle", result="stop"))
        assert chat.ask(QUESTION)[0].arm == "middle"

    def test_no_text_is_kept(self, tmp_path):
        """Neither in the record nor beside it."""
        with SqlRecord(f"sqlite:///{tmp_path / 'record.db'}") as record:
            chat = Chat(record)
            chat.ask(QUESTION)
            assert chat.ask(QUESTION)[0] is not None
        assert all(b"evening" not in path.read_bytes() for path in tmp_path.iterdir())


class TestWhatItIsWorth:
    def outcome(self, source_, time=T + 1.0):
        """A signal."""
        return Outcome("d", time, SCOPE, source=source_, key=source_)

    def test_nothing_unless_the_domain_says_what(self):
        """It is not silence either: it is not there."""
        signals = [self.outcome(one) for one in SIGNALS]
        vote = Outcome("d", T, SCOPE, vote=1)
        assert reward(signals, T, T, RewardConfig()) is None
        assert reward([vote, *signals], T, T, RewardConfig()) == 1.0
        assert reward(signals, T, T + 1e9, RewardConfig(default=0.5)) == 0.5

    def test_what_the_domain_says(self):
        """As votes are, in the order of time; a measured quality beats it."""
        spec = RewardConfig(signals={"reask": 0.25, "regenerate": 0.0})
        vote, measured = Outcome("d", T, SCOPE, vote=1), Outcome("d", T, SCOPE, quality=0.875)
        assert reward([self.outcome("reask")], T, T, spec) == 0.25
        assert reward([self.outcome("reask"), vote], T, T, spec) == 0.25
        assert reward([self.outcome("regenerate"), vote, measured], T, T, spec) == 0.875
        assert reward([self.outcome("reask"), vote], T, T, spec.model_copy(update={"aggregate": "mean"})) == 0.625

    def test_a_worth_for_one_leaves_the_other_alone(self):
        """Each is stated by itself."""
        spec = RewardConfig(signals={"reask": 0.25})
        assert reward([self.outcome("regenerate")], T, T, spec) is None

    def test_a_specification_without_them_reads_history_as_before(self):
        """Its fingerprint is the same."""
        assert RewardConfig(signals={}).fingerprint == RewardConfig().fingerprint
        assert RewardConfig(signals={"reask": 0.5}).fingerprint != RewardConfig().fingerprint

    def test_only_signals_may_come_without_a_measure(self):
        """Of all others it is a mistake."""
        with pytest.raises(ShapeError):
            Outcome("d", T, SCOPE, source="app")

    def test_the_warehouse_reads_them_too(self, tmp_path):
        """Worth what the domain says, whatever it says later."""
        chat = Chat()
        _, first = chat.ask(QUESTION, answered=False)
        chat.router.report(Outcome(first.id, chat.now, SCOPE, source="reask"))
        load(chat.record, tmp_path / "w.duckdb")
        config = chat.router.domain
        worth = config.model_copy(update={"reward": RewardConfig(signals={"reask": 0.25})})
        assert len(read_feedback(tmp_path / "w.duckdb", SCOPE, config, chat.now)) == 0
        assert read_feedback(tmp_path / "w.duckdb", SCOPE, worth, chat.now).rewards.tolist() == [0.25]
