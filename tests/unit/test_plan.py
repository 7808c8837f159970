"""The plan a person reads is the machine's own table."""

from vmnet.domain_xml import DomainInfo, Interface, parse
from vmnet.machine import TABLE, State, Step
from vmnet.plan import _ROUTE, plan_lines

XML = b"""<domain type='kvm'><name>blue</name><uuid>11111111-2222-3333-4444-555555555555</uuid><memory>524288</memory>
<os><type arch='x86_64' machine='pc-q35-8.2'>hvm</type></os><devices>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/></interface>
</devices></domain>"""


MARK = b"""<metadata><v:router xmlns:v='urn:vmnet:router:1' management='52:54:00:00:00:01'/></metadata><devices>"""


def lines(xml: bytes = XML, told: bool = False) -> list[str]:
    return plan_lines(parse(xml), "left", "right", told)


def test_it_says_what_goes_where() -> None:
    head = lines()[0]
    assert head == "VM blue (512 MiB, 52:54:00:00:00:01 on br0) goes from left to right"


def test_every_line_names_a_host_and_a_step() -> None:
    words = {one.value for one in Step}
    for line in lines()[1:]:
        host, _, rest = line.partition(": on ")
        assert host in ("left", "right")
        assert rest.split(": ", 1)[1] in words


def test_it_has_every_step_of_a_migration_that_goes_well() -> None:
    text, routers = "\n".join(lines()), "\n".join(lines(XML.replace(b"<devices>", MARK), told=True))
    back = {
        Step.ABORT_JOB,
        Step.RETURN_FABRIC,
        Step.RETURN_LINKS,
        Step.REOPEN,
        Step.RESUME_GUEST,
        Step.CANCEL_PEER,
        Step.TELL_FAILED,
    }
    # only if the guest left something; only to another LAN; only if the destination's daemon is late; only with --suspend
    sometimes = {Step.RECOVER, Step.STRETCH, Step.AWAIT_CLAIM, Step.TELL_PAUSED, Step.ANNOUNCE_AGAIN}
    links = {Step.MOVE_LINKS, Step.TAKE_LINKS}
    told = {Step.PREPARE_FABRIC, Step.CUT_OVER, Step.FINISH_FABRIC}
    for one in set(Step) - back - sometimes:
        assert one.value in routers, one
        assert (one.value in text) == (one not in links | told), one


def test_a_fabric_is_told_only_where_there_is_one_to_tell() -> None:
    assert Step.CUT_OVER.value in "\n".join(lines(told=True))
    assert Step.CUT_OVER.value not in "\n".join(lines())


def reachable(role: object, start: State) -> set[State]:
    seen = {start}
    for _ in State:
        seen |= {one.next for one in TABLE if one.role is role and one.state in seen}
    return seen


def test_the_route_never_goes_back_and_ends_at_both_ends() -> None:
    at: dict[object, State] = {}
    for role, state, event in _ROUTE:
        row = next(one for one in TABLE if (one.role, one.state, one.event) == (role, state, event))
        assert state in reachable(role, at.get(role, state)), (role, state)
        at[role] = row.next
    assert set(at.values()) == {State.DONE}


def test_an_interface_without_a_bridge_is_named_by_its_kind() -> None:
    info = parse(XML)
    info = DomainInfo(
        **{**info.__dict__, "interfaces": (Interface("52:54:00:00:00:02", "network"),)}  # type: ignore[arg-type]
    )
    assert "52:54:00:00:00:02 on network" in plan_lines(info, "left", "right")[0]
