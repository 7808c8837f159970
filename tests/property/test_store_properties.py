"""Whatever is put into records and logs comes out again, and damage never passes for a whole file."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from vmnet.errors import StaleGenerationError
from vmnet.store import Binding, JournalEntry, dblog, generation, rows

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT
JSON = st.dictionaries(
    TEXT, st.recursive(LEAVES, lambda x: st.lists(x) | st.dictionaries(TEXT, x), max_leaves=8)
)
BODIES = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6)


@given(JSON, st.none() | JSON)
def test_json_columns_there_and_back(action: dict[str, object], inverse: dict[str, object] | None) -> None:
    assert rows.load(rows.dump(action)) == action
    assert rows.load(rows.dump(inverse)) == inverse
    entry = JournalEntry(0, action, inverse)
    assert JournalEntry.from_json(json.loads(json.dumps(entry.to_json()))) == entry
    assert rows.normal(entry).same_step(entry)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 6), st.booleans())))
def test_generations_only_grow(calls: list[tuple[str, int | None, bool]]) -> None:
    stored: Binding | None = None
    for host, number, claim in calls:
        before = stored.generation if stored else -1
        wanted = Binding("vm", "vm", host, generation=number or 0)
        try:
            stored = (
                generation.claimed(stored, wanted, number) if claim else generation.learned(stored, wanted)
            )
        except StaleGenerationError:
            continue
        assert stored.generation > before or stored == wanted


def log(bodies: list[bytes]) -> bytes:
    return b"".join(
        f"OVSDB JSON {len(body)} {hashlib.sha1(body).hexdigest()}\n".encode() + body for body in bodies
    )


@given(BODIES, st.data())
def test_a_cut_leaves_whole_records_and_at_most_a_torn_one(bodies: list[bytes], data: st.DataObject) -> None:
    content = log(bodies)
    cut = data.draw(st.integers(len(log(bodies[:1])), len(content)))
    found = dblog.scan(content[:cut])
    assert not found.damaged
    assert found.torn == (found.good < cut)


@given(BODIES, st.data())
def test_damage_before_the_last_record_is_always_seen(bodies: list[bytes], data: st.DataObject) -> None:
    content = bytearray(log([*bodies, b"the last one"]))
    at = data.draw(st.integers(0, len(log(bodies)) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    assert dblog.scan(bytes(content)).damaged
