"""VMs that run at other hosts, as their bindings say: one of them is not started here a second time."""

from __future__ import annotations

import logging

from dom0.context import Context
from vmnet.domain_xml import DomainInfo
from vmnet.errors import VmnetError

log = logging.getLogger(__name__)
_ANSWER_S = 2.0


async def refresh(context: Context) -> None:
    """The hook's shell asks us about a start of these VMs; it lets all others start without waiting for us."""
    context.marks.elsewhere.replace(
        one.name for one in await context.store.bindings() if one.active and one.host != context.host
    )


async def second_start(context: Context, info: DomainInfo) -> str:
    """Why this VM is not to start here; "" if it may.

    The host to which it is bound has the last word: the VM may have ended there. Where that host does not answer it may start: its
    host may have failed, and somebody starts it anew.
    """
    if not context.config.hooks.refuse_second_start:
        return ""
    binding = await context.store.binding_get(info.uuid)
    if binding is None or not binding.active or binding.host not in context.peers:
        return ""
    try:
        said = await context.peers[binding.host].request("runs", {"vm": info.uuid}, _ANSWER_S)
    except VmnetError as error:
        log.warning("VM %s starts here, and may run on %s: %s", info.name, binding.host, error)
        return ""
    if said.get("runs") is not True:
        return ""
    return (
        f"VM {info.name} runs on {binding.host}: migrate it here, or stop it there "
        "([hooks] refuse_second_start = false lets it start)"
    )
