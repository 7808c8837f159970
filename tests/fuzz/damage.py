"""A valid message in which one thing is wrong: another value, a field that lacks, a list that is repeated or where none belongs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=300)
    | st.sampled_from(("192.0.2.1", "\x00", "\x1b[2J", "\ud800", "9" * 5000, 1 << 70, -1))
)
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner))
Path = tuple[str | int, ...]


def places(value: object, path: Path = ()) -> Iterator[Path]:
    """Every place in a message but its outermost."""
    parts: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in parts:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def damaged(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    message = copy.deepcopy(valid)
    *way, last = draw(st.sampled_from(sorted(places(valid), key=repr)))
    inner: Any = message
    for key in way:
        inner = inner[key]
    how = draw(st.sampled_from(("replace", "replace", "remove", "repeat")))
    if how == "replace":
        inner[last] = draw(JSON)
    elif how == "remove":
        del inner[last]
    elif isinstance(inner[last], list):
        inner[last] = inner[last] * draw(st.sampled_from((2, 65, 1000)))
    else:
        inner[last] = [inner[last]]
    return message
