"""One look for all pictures. matplotlib is imported only when something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vmnet.errors import UnavailableError

ARRIVED, SENT, LOST = "#2b6cb0", "#a9bfd6", "#d1242f"
PHASE = {"pass": "#8c9bab", "diverting": "#b7791f", "stopped": "#c05621", "draining": "#2f855a"}
MARK = {"divert": "#b7791f", "stop": "#c05621", "resume": "#c05621", "marker": "#2f855a"}
SCHEMES = {
    "libvirt-bridge": "#8c9bab",
    "libvirt-ovs": "#4a5568",
    "ovn-multichassis": "#97266d",
    "vmnet-virsh": "#dd8a3c",
    "vmnet": "#2b6cb0",
    "vmnet-openflow": "#2c7a7b",
}
_SPARE = ("#805ad5", "#2f855a", "#b83280", "#975a16")


def colour(scheme: str, number: int) -> str:
    return SCHEMES.get(scheme, _SPARE[number % len(_SPARE)])


def pyplot() -> Any:
    """matplotlib without a display. Raises UnavailableError when it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise UnavailableError("matplotlib is not installed", "install vmnet[plot]") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "0.9",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }
    )
    return plt


def save(figure: Any, file: Path) -> None:
    import matplotlib.pyplot as plt

    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)
