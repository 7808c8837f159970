"""Whatever bytes a peer, a hook or a file holds: a value or the one documented error, never anything else."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.hook_call import HookAnswer, encode_answer, parse_header
from hooks.hook import quote
from vmnet.config import Config, parse
from vmnet.errors import ConfigError, ExitCode, PeerError
from vmnet.peer import frame
from vmnet.wire import error_from_dict, error_to_dict

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
quick = settings(max_examples=200, deadline=None)


def feed(data: bytes) -> dict[str, object]:
    async def read() -> dict[str, object]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await frame.read(reader)

    return asyncio.run(read())


@quick
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_frame_comes_back_as_it_went(message: dict[str, object]) -> None:
    assert feed(frame.encode(message)) == message


@quick
@given(
    st.binary(max_size=300)
    | JSON.map(lambda v: json.dumps(v).encode()).map(lambda b: len(b).to_bytes(4, "big") + b)
)
def test_any_bytes_from_a_peer(data: bytes) -> None:
    try:
        assert isinstance(feed(data), dict)
    except (PeerError, EOFError) as error:
        assert "\n" not in str(error)


def test_deep_nesting_is_garbled() -> None:
    with pytest.raises(PeerError, match="nested too deeply"):
        frame.decode(b"[" * 1_000_000)


@quick
@given(JSON)
def test_any_error_object(raw: object) -> None:
    error = error_from_dict(raw)
    assert error.code is not ExitCode.OK
    assert str(error).isprintable()
    again = error_from_dict(error_to_dict(error))
    assert (type(again), again.code, str(again)) == (type(error), error.code, str(error))


NAME = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60)


@quick
@given(st.sampled_from(["qemu", "libxl"]), NAME, NAME, NAME, NAME, st.integers(0, 1_048_576))
def test_a_hook_header_comes_back_as_it_went(
    driver: str, name: str, op: str, sub: str, extra: str, n: int
) -> None:
    words = [driver, *map(quote, (name, op, sub, extra)), str(n)]
    assert parse_header(f"HOOK 1 {' '.join(words)}\n".encode()) == (driver, name, op, sub, extra, n)


@quick
@given(
    st.binary(max_size=200)
    | st.lists(st.binary(max_size=9), max_size=9).map(lambda w: b"HOOK 1 qemu " + b" ".join(w))
)
def test_any_hook_header(line: bytes) -> None:
    try:
        *fields, length = parse_header(line + b"\n")
    except ValueError:
        return
    assert all(str(one).isprintable() for one in fields)
    assert 0 <= length <= 1_048_576


@quick
@given(st.text())
def test_a_refusal_is_always_one_line(text: str) -> None:
    data = encode_answer(HookAnswer(refuse=text))
    assert data.count(b"\n") == 1
    assert data.startswith(b"REFUSE " if text else b"OK 0")


WORDS = r"""[host] [peers.b] [bridges] [binding] [hold] [store] [[peers]] name= address= max_bytes= remotes= port=
x.y.z= peers= "\n\u0000"= "a" 1 [] {} {x=1} true 0xffffffffffffffffffffff 1e999 nan 1979-05-27 "10.0.0.1" """
TOML = st.sampled_from([*WORDS.split(), "9" * 5000, "0x" + "f" * 5000])


def toml(words: list[str]) -> str:
    return "".join(word if word.endswith("=") else word + "\n" for word in words)


@quick
@given(st.text(max_size=60) | st.lists(TOML, max_size=8).map(toml))
def test_any_configuration(text: str) -> None:
    try:
        assert isinstance(parse(text, "file"), Config)
    except ConfigError as error:
        assert str(error).startswith("file: ")
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
