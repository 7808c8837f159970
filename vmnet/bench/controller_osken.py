"""The application of os-ken that the controller bench runs: packet-in, packet-out."""

from __future__ import annotations

from typing import Any

from os_ken.base.app_manager import OSKenApp
from os_ken.controller import ofp_event
from os_ken.controller.handler import MAIN_DISPATCHER, set_ev_cls
from os_ken.ofproto import ofproto_v1_3


class Answerer(OSKenApp):  # type: ignore[misc]
    OFP_VERSIONS = (ofproto_v1_3.OFP_VERSION,)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def answer(self, event: Any) -> None:
        said = event.msg
        path = said.datapath
        parser, protocol = path.ofproto_parser, path.ofproto
        actions = [parser.OFPActionOutput(said.match["in_port"])]
        path.send_msg(
            parser.OFPPacketOut(
                datapath=path,
                buffer_id=protocol.OFP_NO_BUFFER,
                in_port=protocol.OFPP_CONTROLLER,
                actions=actions,
                data=said.data,
            )
        )
