"""What libvirt's ``virsh domjobinfo --completed --rawstats`` says of a migration that has ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# names of typed parameters: libvirt-domain.h, VIR_DOMAIN_JOB_*
_ELAPSED, _DOWNTIME, _BYTES, _PAGES = "time_elapsed", "downtime", "memory_processed", "memory_normal"
_ZERO, _TOTAL, _PAGE_BYTES, _PASSES = (
    "memory_constant",
    "memory_total",
    "memory_page_size",
    "memory_iteration",
)


@dataclass(frozen=True, slots=True)
class Job:
    """``downtime_ms``: as QEMU reckons it. ``memory_bytes``: transferred, in all passes."""

    elapsed_ms: int | None = None
    downtime_ms: int | None = None
    memory_bytes: int | None = None
    pages_sent: int | None = None
    pages_zero: int | None = None
    total_bytes: int | None = None
    page_bytes: int | None = None
    passes: int | None = None

    @property
    def pages_again(self) -> int | None:
        """Pages sent more than once: what the guest dirtied while it was copied."""
        if self.pages_sent is None or self.pages_zero is None or not self.total_bytes or not self.page_bytes:
            return None
        return max(0, self.pages_sent + self.pages_zero - self.total_bytes // self.page_bytes)


def parse(text: str) -> Job:
    """What is not said is None."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.strip().isdigit():
            found[name.strip()] = int(value)
    names = (_ELAPSED, _DOWNTIME, _BYTES, _PAGES, _ZERO, _TOTAL, _PAGE_BYTES, _PASSES)
    return Job(*(found.get(name) for name in names))
