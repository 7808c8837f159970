"""Where a VM is defined after a migration."""

import libvirt
import pytest

from dom0.options import Options
from vmnet.errors import RefusedError
from vmnet.hypervisor.definition import Definition

PERSIST, UNDEFINE = libvirt.VIR_MIGRATE_PERSIST_DEST, libvirt.VIR_MIGRATE_UNDEFINE_SOURCE


@pytest.mark.parametrize(
    ("definition", "was_persistent", "flags"),
    [
        (Definition(), True, PERSIST | UNDEFINE),
        (Definition(), False, 0),
        (Definition(keep_source=True), True, PERSIST),
        (Definition(persistent=True), False, PERSIST),
        (Definition(persistent=True), True, PERSIST | UNDEFINE),
        (Definition(persistent=False), True, 0),  # the only definition stays
        (Definition(persistent=False, keep_source=True), False, 0),
    ],
)
def test_what_libvirt_is_asked_for(definition: Definition, was_persistent: bool, flags: int) -> None:
    assert definition.flags(was_persistent) == flags


def test_options_of_a_request() -> None:
    assert Options.from_request({}) == Options()
    said = {"max_downtime_ms": 50, "allow_unprotected": True, "persistent": False, "keep_source": True}
    assert Options.from_request(said) == Options(50, True, Definition(False, True))
    assert Options.from_request(dict.fromkeys(said)) == Options()


@pytest.mark.parametrize(
    "field",
    [{"max_downtime_ms": 0}, {"max_downtime_ms": True}, {"max_downtime_ms": 60_001}]
    + [
        {name: wrong}
        for name in ("allow_unprotected", "persistent", "keep_source")
        for wrong in (1, "yes", [])
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(RefusedError, match=next(iter(field))):
        Options.from_request(field)
