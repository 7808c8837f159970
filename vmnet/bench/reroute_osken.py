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
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from os_ken.ofproto import ofproto_v1_4  # noqa: E402

from vmnet.bench.reroute_stage import COOKIE, PRIORITY, destination  # noqa: E402

FLOWS, OUT_PORT, NEW = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "add"


class Sender(OSKenApp):  # type: ignore[misc]
    OFP_VERSIONS = (ofproto_v1_4.OFP_VERSION,)

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)  # type: ignore[untyped-decorator]
    def ready(self, event: Any) -> None:
        path = event.msg.datapath
        protocol, parser = path.ofproto, path.ofproto_parser
        command = protocol.OFPFC_ADD if NEW else protocol.OFPFC_MODIFY_STRICT
        mask = 0 if NEW else 0xFFFFFFFFFFFFFFFF
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

    @set_ev_cls(ofp_event.EventOFPBarrierReply, (CONFIG_DISPATCHER, MAIN_DISPATCHER))  # type: ignore[untyped-decorator]
    def done(self, event: Any) -> None:
        print(json.dumps({"seconds": time.perf_counter() - self.began}), flush=True)
        os._exit(0)


def main() -> None:
    cfg.CONF(args=["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653"], project="os_ken")
    manager = AppManager.get_instance()
    manager.load_app(Sender.__module__)
    manager.instantiate(Sender)
    hub.joinall(manager.instantiate_apps())


if __name__ == "__main__":
    main()
