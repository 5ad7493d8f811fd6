"""Facts about decision ids: nobody makes one, changes one, or uses one that another tenant or user was given."""

from __future__ import annotations

import copy
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bandits.errors import ForgedIdError, InvalidNameError, KeyFileError, UnknownDecisionError
from bandits.ids import IdRing, bare, check, mint, pseudonym, sign
from bandits.snapshots.keys import SecretKey, id_key_names, id_keys, pseudonym_key, rotate_id_key
from bandits.testing.ports import sample_decision
from bandits.types import new_id

GOLDEN = "01a0c4506df430313233343536373839521dcceee3bdce0323c8fba04b26915b"
KEY, OLDER = SecretKey(b"k" * 32), SecretKey(b"o" * 32)
keys = st.binary(min_size=32, max_size=32).map(SecretKey)
texts = st.text(max_size=40)
times = st.floats(0.0, 2**48 / 1000.0, exclude_max=True)
noises = st.binary(min_size=10, max_size=10)


def refused(token, keys, tenant, user):
    """Whether it does not verify; raises if it does so by any other error."""
    try:
        check(token, keys, tenant, user)
    except ForgedIdError:
        return True
    return False


@given(keys, texts, texts, times, noises)
def test_a_token_gives_its_decision_id_to_whom_it_was_given(key, tenant, user, time, noise):
    """The id is the raw one of that time and noise; a token is 64 hexadecimal digits."""
    token = mint(key, tenant, user, time, noise)
    assert check(token, [KEY, key], tenant, user) == new_id(time, noise) == bare(token)
    assert (len(token), set(token) <= set("0123456789abcdef")) == (64, True)
    assert sign(key, tenant, user, bare(token)) == token


@given(texts, texts, noises, st.integers(0, 63), st.characters())
def test_no_token_verifies_after_any_change_of_a_character(tenant, user, noise, place, character):
    """Whatever stands there instead: another digit, the same one in capitals, or no digit at all."""
    token = mint(KEY, tenant, user, 1e9, noise)
    assume(token[place] != character)
    assert refused(token[:place] + character + token[place + 1 :], [KEY], tenant, user)


@pytest.mark.parametrize("place", range(64))
def test_no_token_verifies_with_any_other_digit(place):
    """All 64 places, all other digits and their capitals."""
    token = mint(KEY, "acme", "u", 1e9, bytes(range(10)))
    others = set("0123456789abcdefABCDEF") - {token[place]}
    assert all(refused(token[:place] + digit + token[place + 1 :], [KEY], "acme", "u") for digit in others)


@given(texts, texts, noises, st.integers(0, 64), st.text(min_size=1, max_size=3))
def test_no_token_verifies_when_it_grows_or_shrinks(tenant, user, noise, place, more):
    """A line end behind it is a change too."""
    token = mint(KEY, tenant, user, 1e9, noise)
    for changed in (token[:place] + more + token[place:], token[:place], token + "\n", "", bare(token)):
        if changed != token:
            assert refused(changed, [KEY], tenant, user)


@given(keys, keys, texts, texts, texts, texts, noises)
def test_another_key_tenant_or_user_never_verifies(key, other, tenant, tenant_2, user, user_2, noise):
    """Nor do two of them that would read the same when written one behind the other."""
    token = mint(key, tenant, user, 1e9, noise)
    assert refused(token, [key], tenant_2, user_2) is ((tenant, user) != (tenant_2, user_2))
    assert refused(token, [other], tenant, user) is (key.id != other.id)
    assert refused(token, [], tenant, user)
    if user:
        assert refused(token, [key], tenant + user[0], user[1:])


@given(st.lists(st.tuples(times, noises), min_size=2, max_size=20))
def test_tokens_sort_by_time(made):
    """To the millisecond, under whatever key."""
    tokens = sorted(mint(key, "acme", "u", time, noise) for time, noise in made for key in (KEY, OLDER))
    milliseconds = [int(token[:12], 16) for token in tokens]
    assert milliseconds == sorted(milliseconds) == sorted(int(time * 1000) for time, _ in made for _ in range(2))


def test_a_refusal_says_the_same_whatever_was_wrong():
    """Forged, another's, or no token at all: one text, and to the record's callers an unknown decision."""
    token = mint(KEY, "acme", "u", 1e9)
    told = set()
    for given_token, tenant, user in (
        (token, "rival", "u"),
        (token, "acme", "v"),
        ("f" * 64, "acme", "u"),
        ("", "", ""),
    ):
        with pytest.raises(UnknownDecisionError) as error:
            check(given_token, [KEY], tenant, user)
        told.add(str(error.value))
    assert len(told) == 1


def test_only_an_id_of_ours_is_signed():
    """Anything else could end where its MAC begins, and would not be split again."""
    with pytest.raises(ValueError, match=r"one of new_id\(\), but got 'd1'"):
        sign(KEY, "acme", "u", "d1")


@given(keys, texts, texts, texts)
def test_a_pseudonym_is_the_same_each_time_and_differs_by_key_tenant_and_user(key, tenant, user, other):
    """Nobody in particular stays so."""
    made = pseudonym(key, tenant, user)
    assert made == pseudonym(key, tenant, user)
    assert pseudonym(key, tenant, "") == ""
    if user:
        assert len(made) == 32
        assert (made == pseudonym(key, tenant, other)) is (user == other)
        assert made != pseudonym(KEY, tenant, user) or key.id == KEY.id
        assert made != pseudonym(key, tenant + "x", user)


def test_keys_are_made_at_first_use_for_their_owner_alone(tmp_path):
    """256 random bits, mode 0600 in folders of mode 0700; the same at every later look, each tenant its own."""
    home = tmp_path / "home"
    (key,) = id_keys(home)
    acme, rival = pseudonym_key(home, "acme"), pseudonym_key(home, "rival")
    assert ([key.id], acme.id) == ([one.id for one in id_keys(home)], pseudonym_key(home, "acme").id)
    assert len({key.id, acme.id, rival.id}) == 3
    files = {str(path.relative_to(home)): path for path in home.rglob("*") if path.is_file()}
    assert files.keys() == {"keys/ids/000001.key", "keys/pseudonyms/acme.key", "keys/pseudonyms/rival.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in files.values()} == {0o700}
    assert len({path.read_bytes() for path in files.values()}) == 3


def test_however_many_race_for_the_first_key_there_is_one(tmp_path):
    """All sign alike from the first decision on."""
    with ThreadPoolExecutor(16) as pool:
        rings = [IdRing(tmp_path / "home") for _ in range(16)]
        tokens = list(pool.map(lambda ring: ring.token(sample_decision("0" * 32)), rings))
    assert len(set(tokens)) == 1


def test_after_a_rotation_the_newest_key_signs_and_older_ones_are_accepted_until_they_are_gone(tmp_path):
    """In every process that runs, from its next call on."""
    ring, other = IdRing(tmp_path), IdRing(tmp_path)
    decision = sample_decision(new_id(1e9), user=ring.pseudonym("acme", "alice"))
    old = other.token(decision)
    rotate_id_key(tmp_path)
    new = ring.token(decision)
    assert new != old
    assert other.token(decision) == new
    for token in (old, new):
        assert other.check(token, "acme", "alice") == decision.id
    assert id_key_names(tmp_path) == ("000002.key", "000001.key")
    (tmp_path / "keys" / "ids" / "000001.key").unlink()
    assert other.check(new, "acme", "alice") == decision.id
    with pytest.raises(ForgedIdError):
        other.check(old, "acme", "alice")
    rotate_id_key(tmp_path)
    assert id_key_names(tmp_path) == ("000003.key", "000002.key")


def test_the_ring_binds_to_tenant_and_user(tmp_path):
    """A user is known to the ring by the app's own name, and to the record by a pseudonym."""
    ring = IdRing(tmp_path)
    decision = sample_decision(new_id(1e9), user=ring.pseudonym("acme", "alice@example.org"))
    token = ring.token(decision)
    assert ring.check(token, "acme", "alice@example.org") == decision.id
    for tenant, user in (("acme", ""), ("acme", "bert"), ("acme", decision.user), ("rival", "alice@example.org")):
        with pytest.raises(ForgedIdError):
            ring.check(token, tenant, user)
    assert "alice" not in decision.user


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.chmod(0o640), "chmod 0600"),
        (lambda path: path.write_bytes(b"short"), "must have 32 bytes, but has 5"),
        (lambda path: path.parent.chmod(0o755), "chmod 0700"),
        (lambda path: path.parent.parent.chmod(0o777), "chmod 0755"),
    ],
)
def test_a_key_that_cannot_be_trusted_signs_nothing(tmp_path, damage, message):
    """The error names the file and the mend."""
    id_keys(tmp_path)
    damage(tmp_path / "keys" / "ids" / "000001.key")
    with pytest.raises(KeyFileError, match=message):
        IdRing(tmp_path).token(sample_decision(new_id(1e9)))


def test_a_tenant_that_is_no_name_has_no_key(tmp_path):
    """Or it would be a path."""
    with pytest.raises(InvalidNameError):
        pseudonym_key(tmp_path, "../ids/000001")


def test_a_key_shows_only_its_id():
    """Not in a log, not in a traceback's locals, not in a pickle; a wrong size is refused."""
    assert repr(KEY) == str(KEY) == f"SecretKey(id='{KEY.id}')"
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="must stay in its process"):
            take(KEY)
    with pytest.raises(KeyFileError, match="32 bytes, but has 3"):
        SecretKey(b"abc")


def test_a_golden_token_still_verifies():
    """Tokens that are out there must stay good: this one was made by the first version."""
    token = mint(SecretKey(bytes(range(32))), "acme", "5f3a", 1_790_000_000.5, b"0123456789")
    assert token == GOLDEN
