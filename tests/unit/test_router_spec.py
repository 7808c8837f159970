"""A router's element in its domain's metadata: written, found again, refused if it is malformed."""

import pytest

from vmnet import domain_xml
from vmnet.errors import RefusedError
from vmnet.router import URI, RouterSpec

MAC = "52:54:00:00:0a:03"


def domain(metadata: str) -> bytes:
    return f"<domain type='qemu'><name>vr1</name><metadata>{metadata}</metadata></domain>".encode()


def as_libvirt_has_it(spec: RouterSpec) -> str:
    """libvirt puts the namespace's prefix before every name of the element."""
    text = spec.to_xml().replace("<router", f"<vmnet:router xmlns:vmnet='{URI}'", 1)
    return (
        text.replace("</router>", "</vmnet:router>")
        .replace("<address", "<vmnet:address")
        .replace("</address", "</vmnet:address")
    )


@pytest.mark.parametrize(
    "spec",
    [RouterSpec(MAC), RouterSpec(MAC, 0), RouterSpec(MAC, 30, ((MAC, "10.1.0.1/24"), (MAC, "fd01::1/64")))],
)
def test_what_is_written_is_found(spec: RouterSpec) -> None:
    assert domain_xml.parse(domain(as_libvirt_has_it(spec))).router == spec


def test_others_elements_are_none_of_ours() -> None:
    assert domain_xml.parse(domain("<x:router xmlns:x='urn:other' management='x'/><router/>")).router is None
    assert domain_xml.parse(b"<domain><name>x</name></domain>").router is None


def test_an_element_with_a_default_namespace_is_ours_too() -> None:
    found = domain_xml.parse(domain(f"<router xmlns='{URI}' management='{MAC.upper()}'/>")).router
    assert found == RouterSpec(MAC)


@pytest.mark.parametrize(
    ("attributes", "inside", "why"),
    [
        ("", "", "no MAC"),
        ("management='eth0'", "", "no MAC"),
        (f"management='{MAC}' keep-s='-1'", "", "no number of seconds"),
        (f"management='{MAC}' keep-s='86401'", "", "no number of seconds"),
        (f"management='{MAC}'", f"<r:address mac='{MAC}'>10.1.0.1</r:address>", "prefix length"),
        (f"management='{MAC}'", "<r:address mac='x'>10.1.0.1/24</r:address>", "no MAC"),
        (f"management='{MAC}'", f"<r:address mac='{MAC}'>10.1.0.1/24</r:address>" * 257, "more than 256"),
    ],
)
def test_what_is_malformed_is_refused(attributes: str, inside: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        domain_xml.parse(domain(f"<r:router xmlns:r='{URI}' {attributes}>{inside}</r:router>"))
