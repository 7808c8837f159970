"""Whatever bytes arrive as domain XML: a result or a RefusedError, nothing else. Rebinding is idempotent."""

from xml.sax.saxutils import quoteattr

from hypothesis import given, settings
from hypothesis import strategies as st

from vmnet.domain_xml import parse, rebind
from vmnet.errors import RefusedError

PIECES = st.sampled_from(
    [
        b"<domain type='kvm'>",
        b"</domain>",
        b"<name>a</name>",
        b"<devices>",
        b"</devices>",
        b"<interface type='bridge'>",
        b"</interface>",
        b"<source bridge='b'/>",
        b"<mac address='52:54:00:00:00:01'/>",
        b"<mtu size='9'/>",
        b"<virtualport type='openvswitch'/>",
        b"<!DOCTYPE a [",
        b"<!ENTITY a SYSTEM 'x'>",
        b"]>",
        b"&a;",
        b"<![CDATA[",
        b"]]>",
        b"<?xml version='1.0' encoding='utf-16'?>",
        b"\xff\xfe",
    ]
)
BRIDGE = st.text("abcdefgh0123456789-_.", min_size=1, max_size=12).map(lambda name: "b" + name)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=20))
def test_any_bytes(pieces: list[bytes]) -> None:
    xml = b"".join(pieces)
    for use in (parse, lambda data: rebind(data, {"b": "c"}, {"c": True})):
        try:
            use(xml)
        except RefusedError as error:
            assert "\n" not in str(error)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(BRIDGE, min_size=1, max_size=6),
    st.dictionaries(BRIDGE, BRIDGE, max_size=4),
    st.dictionaries(BRIDGE, st.booleans(), max_size=4),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20),
)
def test_rebind_does_what_it_says_and_leaves_the_rest(
    bridges: list[str], mapping: dict[str, str], ovs: dict[str, bool], extra: str
) -> None:
    mapping |= {bridges[0]: "bnew"}
    body = "".join(
        f"<interface type='bridge'><source bridge={quoteattr(b)} x={quoteattr(extra)}/></interface>"
        for b in bridges
    )
    xml = f"<domain type='xen'><name>vm</name><devices>{body}</devices></domain>".encode()
    new = rebind(xml, mapping, ovs)
    assert new is not None
    info = parse(new)
    assert [one.bridge for one in info.interfaces] == [mapping.get(b, b) for b in bridges]
    assert all(
        (one.virtualport == "openvswitch") == ovs.get(one.bridge or "", False) for one in info.interfaces
    )
    assert rebind(new, {}, ovs) is None
    assert (info.name, info.driver) == ("vm", "xen")
