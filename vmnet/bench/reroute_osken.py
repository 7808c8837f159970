"""The rerouting bench's flow mods by os-ken, as its documentation has an application do it. Run as a program of its own.

Arguments: how many flows, the port they go to, "add" or "modify". Prints one JSON line and ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from os_ken.lib import hub

hub.patch()

from os_ken import cfg  # noqa: E402
from os_ken.base.app_manager import AppManager, OSKenApp  # noqa: E402
from os_ken.controller import ofp_event  # noqa: E402
from os_ken.controller.handler import MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from os_ken.ofproto import ofproto_v1_4  # noqa: E402

from controller_bridge.openflow.flow import SAME_OWNER  # noqa: E402
from vmnet.bench.reroute_stage import COOKIE, PRIORITY, destination  # noqa: E402

FLOWS, OUT_PORT, NEW = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "add"


class Sender(OSKenApp):  # type: ignore[misc]
    OFP_VERSIONS = (ofproto_v1_4.OFP_VERSION,)

    @set_ev_cls(ofp_event.EventOFPStateChange, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def ready(self, event: Any) -> None:
        path = event.datapath
        protocol, parser = path.ofproto, path.ofproto_parser
        command = protocol.OFPFC_ADD if NEW else protocol.OFPFC_MODIFY_STRICT
        mask = 0 if NEW else SAME_OWNER
        self.began = time.perf_counter()
        for number in range(FLOWS):
            match = parser.OFPMatch(eth_type=0x0800, ipv4_dst=str(destination(number)))
            actions = [parser.OFPActionOutput(OUT_PORT)]
            instructions = [parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions)]
            path.send_msg(
                parser.OFPFlowMod(
                    path,
                    cookie=COOKIE,
                    cookie_mask=mask,
                    command=command,
                    priority=PRIORITY,
                    match=match,
                    instructions=instructions,
                )
            )
        path.send_msg(parser.OFPBarrierRequest(path))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def done(self, event: Any) -> None:
        print(json.dumps({"seconds": time.perf_counter() - self.began}), flush=True)
        os._exit(0)


def main() -> None:
    cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653"], project="os_ken")
    manager = AppManager.get_instance()
    manager.load_apps(["vmnet.bench.reroute_osken"])
    hub.joinall(manager.instantiate_apps(**manager.create_contexts()))


if __name__ == "__main__":
    main()
