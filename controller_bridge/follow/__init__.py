"""Where a VM should run, by where its clients are or by what its hosts can carry (Erickson 2008). Pure; see docs/follow.md."""

from controller_bridge.follow.decision import Decision, Verdict, decide
from controller_bridge.follow.facts import Host, Limits, Situation, Vm
from controller_bridge.follow.rating import Policy

__all__ = ["Decision", "Host", "Limits", "Policy", "Situation", "Verdict", "Vm", "decide"]
