"""Facts about people's keys: one a person, and nothing of it is left when it is destroyed."""

from __future__ import annotations

import stat

import pytest

from bandits.errors import KeyFileError
from bandits.privacy.people import People, seal, unseal
from bandits.testing.ports import at_once


def test_a_person_has_one_key_for_ever_and_others_have_others(tmp_path):
    """Whoever asks first makes it."""
    people = People(tmp_path / "keys" / "people.db")
    made: list[bytes] = []
    at_once(lambda _: made.append(people.keys(("acme", "u-1"))[("acme", "u-1")][1]), [str(i) for i in range(8)])

    assert len(set(made)) == 1
    others = people.keys(("acme", "u-2"), ("rival", "u-1"))
    assert len({made[0], *(key for _, key in others.values())}) == 3
    assert len(people.numbered()) == 3


def test_what_is_sealed_opens_with_the_persons_key_alone(tmp_path):
    """Not with another's, and not when a bit was changed."""
    people = People(tmp_path / "people.db")
    number, sealed = people.seal("acme", "u-1", b"what she asked")
    keys = people.numbered() | {99: people.keys(("acme", "u-2"))["acme", "u-2"][1]}

    assert unseal(keys[number], sealed) == b"what she asked"
    assert b"asked" not in sealed
    assert seal(keys[number], b"x") != seal(keys[number], b"x")
    for key, content in ((keys[99], sealed), (keys[number], sealed[:-1] + bytes([sealed[-1] ^ 1]))):
        with pytest.raises(KeyFileError, match="changed"):
            unseal(key, content)


def test_a_destroyed_key_leaves_no_byte_in_any_file(tmp_path):
    """Nor the pseudonym; other people's keys stay; destroying twice is destroying once."""
    people = People(tmp_path / "people.db")
    everyone = [("acme", f"pseudonym-{i:04d}") for i in range(300)]
    keys = people.keys(*everyone)
    gone = everyone[150]

    assert people.destroy(*gone)
    assert not people.destroy(*gone)

    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert keys[gone][1] not in content
    assert gone[1].encode() not in content
    assert len(people.numbered()) == 299
    assert keys[everyone[0]][1] in content
    (number, fresh) = people.keys(gone)[gone]
    assert fresh != keys[gone][1]
    assert number != keys[gone][0]


def test_nobody_else_may_read_the_file_or_its_copy(tmp_path):
    """0600; and the copy says the same as the file."""
    people = People(tmp_path / "people.db")
    people.keys(("acme", "u-1"))
    people.copy_to(tmp_path / "copy.db")
    people.copy_to(tmp_path / "copy.db")

    for name in ("people.db", "copy.db"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert People(tmp_path / "copy.db").numbered() == people.numbered()


def test_a_file_that_is_no_database_is_an_error(tmp_path):
    """And is left as it is."""
    (tmp_path / "people.db").write_bytes(b"something else" * 100)
    with pytest.raises(KeyFileError, match="not a database"):
        People(tmp_path / "people.db")
