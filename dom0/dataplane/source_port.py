"""A guest's interface on the host it leaves: keeps everything passing, then holds, recovers what is stranded, and diverts."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice

from controller_bridge import fence
from controller_bridge.local_frame import local_frame
from dom0.dataplane import classifier, grace, names, netdev, pump, ring, stranded, tunnel, wire
from dom0.dataplane.addresses import AddressWatch
from dom0.dataplane.announce import spare_frame
from dom0.dataplane.clock_step import ClockStep
from dom0.dataplane.emptiness import Emptiness, LookPace
from dom0.dataplane.frames import NOT_COPIED, RecordedFrame
from dom0.dataplane.gate import Gate, GateCounts
from dom0.dataplane.gate_program import MARK, Mode, Word
from dom0.dataplane.kernel_limits import SPARE_PACKETS
from dom0.dataplane.neighbour_answers import NeighbourAnswers
from dom0.dataplane.park import NO_OFFLOAD, VNET_HEADER_BYTES, Park
from dom0.dataplane.parts import Parts
from dom0.dataplane.port_settings import PortSettings
from dom0.dataplane.recorder import LAST_BLOCK_S, RETIRE_MS, Recorder
from dom0.dataplane.sender import Sender
from dom0.dataplane.senders import Senders
from dom0.dataplane.stranded_queues import select_of_queues

_COPY_WAIT_S = 0.5
_LOOKED_AT = 16
"""Frames each time, for who sends: who sends many is found in a few looks, at no cost that counts."""
_FOLLOWED_RETIRE_MS = 60
"""The copy of what followed is read only if the guest stays after all; it should then reach back over the whole downtime."""
_MOST_PARKED = 65_536
"""Frames wait at the source only until the tunnel is open: some ten ms at most, even of the smallest at 1 Gbit/s."""
_NOBODY, _US = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
"""Addresses that no guest has: of what marks the end of a copy."""


@dataclass(frozen=True)
class Released:
    """What followed the guest: ``stranded`` frames from the copy, ``parked`` from the park; ``missing`` did not.

    ``dropped``: what the tap had no room for while the guest, which was slow, had not stopped. ``uncopied`` of the missing were
    stranded, and no copy of them was left.
    """

    stranded: int
    possible_duplicates: int
    parked: int
    missing: int
    dropped: int = 0
    uncopied: int = 0


@dataclass(frozen=True)
class Reopened:
    """``frames`` that had followed the guest, or waited, came back to it; ``missing`` did not: no copy or no room was left."""

    frames: int
    missing: int


@dataclass(frozen=True)
class _Way:
    """To the new host. ``followed``: a copy of what takes it."""

    sender: Sender
    followed: Recorder


class SourcePort:
    """``tap`` is the guest's, and it reads it. Everything passes until :meth:`hold`, which needs :meth:`connect`."""

    def __init__(self, tap: str, settings: PortSettings) -> None:
        self.tap, self.settings = tap, settings
        self.tunnel = names.tunnel_name(settings.vni)
        self.was_ready = classifier.is_ready(tap)
        """False: what came as its qdisc was added may have been dropped, uncounted (before Linux 6.6)."""
        self._parts = Parts()
        self._way: _Way | None = None
        with self._parts.closed_on_failure():
            self._make(settings)
        self._resizing = threading.Lock()
        self._offset: int | None = None
        self._queues = netdev.queues(tap)
        self._clock = ClockStep()
        self._emptiness, self._pace = Emptiness(), LookPace()
        self._taken_by_ns: int | None = None
        """By then the guest's hypervisor had read everything, if it was released as one that still ran."""
        self._stranded_sent = self._missing = self._sent = 0
        self._stranded_late: Counter[bytes] = Counter()
        self._brought: Reopened | None = None
        self._tunnelled_before = 0
        self._neighbours: NeighbourAnswers | None = None
        self.copy_complete = True
        """False: what was stranded may not have been found whole."""

    def _make(self, settings: PortSettings) -> None:
        mtu = netdev.get_mtu(self.tap)
        self._queue_length = netdev.get_queue_length(self.tap)
        bounds = replace(settings.bounds, packets=min(settings.bounds.packets, _MOST_PARKED))
        with ThreadPoolExecutor(1) as pool:  # each waits in the kernel
            recorder = pool.submit(self._record, self.tap, settings.recorder_bytes)
            self._park = self._parts.add(Park(names.park_name(settings.vni), bounds.packets, mtu))
        self.recorder = recorder.result()
        self.addresses = self._parts.add(AddressWatch(self.tap, settings.mac))
        self.senders = Senders(settings.mac)
        self.counters = self._parts.add(netdev.TapCounters(self.tap))
        self._dropped_before = self.counters.dropped()
        wire.attach(self._park.name, self.tap, ingress=True)
        self.gate = Gate(self.tap, self._park.ifindex, 0, bounds, Mode.PASS)

    def _record(self, device: str, ring_bytes: int, retire_ms: int = RETIRE_MS) -> Recorder:
        """Added at once: if something else fails, it is given back."""
        return self._parts.add(Recorder(device, ring_bytes, retire_ms))

    def connect(self, local: str, remote: str) -> None:
        """Make the way to the new host, a tunnel between these addresses. OSError if the kernel refuses."""
        settings = self.settings
        index = tunnel.create(self.tunnel, settings.vni, local, remote, netdev.get_mtu(self.tap))
        followed = self._record(self.tunnel, settings.recorder_bytes // 2, _FOLLOWED_RETIRE_MS)
        way = _Way(self._parts.add(Sender(self.tunnel)), followed)
        with self._resizing:
            self.gate.set(Word.EXIT_IFINDEX, index)
            self._way = way

    @property
    def connected(self) -> bool:
        return self._way is not None

    @property
    def _to_tunnel(self) -> Sender:
        assert self._way is not None, "the port is not connected"
        return self._way.sender

    def make_room(self) -> None:
        """Make the tap's ring longer, some ten ms: while its memory is copied a guest is slow, and what does not fit is dropped.

        Measured: at 10,000 packets/s with two processors for everything, up to 959 of a migration's.
        """
        packets = ring.room(self.settings.recorder_bytes, netdev.get_mtu(self.tap))
        with self._resizing, closing(Sender(self.tap, MARK)) as to_tap:
            if self.gate.mode is Mode.PASS:  # the guest has not stopped yet
                self._missing += ring.lengthen(self.gate, self._park, to_tap, packets)

    def turn(self, sampling: bool) -> None:
        """Call every few milliseconds: takes over what was copied and, while the guest runs, samples the counters."""
        copied = self.recorder.total
        self.recorder.turn()
        if self.recorder.total != copied:
            for one in self.recorder.sample(_LOOKED_AT):
                self.senders.note(one.data[VNET_HEADER_BYTES:])
        if self._way is not None:
            self._way.followed.turn()
        self.addresses.turn()
        if sampling:
            self.sample()
        else:
            self.counters.refresh()

    def sample(self) -> None:
        """Learn what the counters show when the tap is empty: the least difference ever seen. Call often while the guest runs."""
        self._clock.look()
        now_ns = time.time_ns()
        self._pace.note(time.monotonic_ns())
        taken = self.counters.taken()  # first: what arrives in between can only make the difference larger
        taken_ns = time.time_ns()
        difference = self.gate.entered() - self.counters.dropped() - taken
        if self._offset is None or difference < self._offset:
            self._offset, self._emptiness = difference, Emptiness()  # it was not empty before
        if difference == self._offset:
            self._emptiness.note(now_ns, taken_ns)

    def unread(self) -> int:
        """Frames in the tap that the guest's hypervisor has not read."""
        difference = self.gate.entered() - self.counters.dropped() - self.counters.taken()
        return max(0, difference - (self._offset or 0))

    def hold(self) -> None:
        """From now on frames wait in the park. One store."""
        with self._resizing:
            self.gate.mode = Mode.HOLD
        self.counters.refresh()
        # a guest may use more than before; later its tap may have gone
        self._queues = max(self._queues, netdev.queues(self.tap))

    def say(self, frame: bytes) -> None:
        """``frame`` (from its Ethernet header on) goes where the guest's go, behind all that it sent. OSError: the tap has gone."""
        self._park.inject(frame)

    def answer_neighbours(self) -> None:
        """Answer, as the guest, who has asked for it since the last call; from the first call on. After :meth:`hold`."""
        if self._neighbours is None:
            ways = (self._park.name, self.tunnel)
            self._neighbours = self._parts.add(
                NeighbourAnswers(self.settings.mac, self.addresses.found, ways)
            )
        for frame in self._neighbours.turn():
            with suppress(OSError):  # the tap has gone: the guest is elsewhere
                self.say(frame)

    def release(self, stop_ns: int | None, exact: bool = True) -> Released:
        """Send what the guest never took, then what waits, into the tunnel; then the gate diverts by itself.

        ``stop_ns``: when the guest stopped (CLOCK_REALTIME); None if the tap was seen empty after :meth:`hold`. ``exact`` False: or
        earlier.
        """
        dropped = self.counters.dropped() - self._dropped_before  # before we send into the tap ourselves
        left = self._find_stranded(stop_ns, exact)
        for frame in left.frames:
            self._to_tunnel.send(frame)
        self._stranded_sent = len(left.frames)
        self.gate.mode = Mode.CLOSE
        pumped = pump.empty(self.gate, self._park, self._to_tunnel)
        self.gate.mode = Mode.DIVERT
        self._sent += len(left.frames) + pumped.sent
        self._missing += pumped.missing
        self.gate.verify()
        return Released(
            len(left.frames),
            left.possible_duplicates,
            pumped.sent,
            left.missing + self._missing,
            dropped,
            left.missing,
        )

    def look_again(self, stop_ns: int) -> Released | None:
        """After a release without ``stop_ns``: what follows the guest now, late, as it had stopped before its tap was seen empty."""
        if self._taken_by_ns is None or (self._taken_by_ns <= stop_ns and not self._clock.look()):
            return None
        left = self._find_stranded(stop_ns, exact=True)
        for frame in left.frames:
            self._to_tunnel.send(frame)
        self._sent += len(left.frames)
        self._stranded_late.update(left.frames)
        if not left.frames and not left.missing:
            return None
        return Released(len(left.frames), left.possible_duplicates, 0, left.missing, 0, left.missing)

    def _find_stranded(self, stop_ns: int | None, exact: bool) -> stranded.Stranded:
        if stop_ns is not None:
            grace.wait_for_hands()
        unread = self.unread()
        self._taken_by_ns = time.time_ns() if stop_ns is None else None
        if stop_ns is None and not unread:
            return stranded.Stranded((), 0)
        # of frames whose times cannot be compared with the stop's, all that may be are in doubt
        comparable = stop_ns is not None and exact and not self._clock.look()
        guard_ns = self._pace.guard_ns()
        empty_ns = self._emptiness.before((stop_ns or 0) - guard_ns) if comparable else 0
        copy = self._complete_copy()
        if self._queues > 1 and stop_ns is not None:
            whole = not self.recorder.forgot
            return select_of_queues(copy, unread, self._queues, stop_ns, empty_ns, guard_ns, whole)
        return stranded.select(copy, unread, stop_ns, empty_ns, guard_ns)

    def _complete_copy(self) -> Iterator[RecordedFrame]:
        newest = self._until_complete()
        if newest is None:
            self.copy_complete = False
            return self.recorder.newest()
        return newest

    def _until_complete(self) -> Iterator[RecordedFrame] | None:
        try:
            with closing(Sender(self.tap, MARK)) as to_tap:
                return _complete(self.recorder, to_tap)
        except OSError:
            # The hypervisor was quicker than we, and the tap has gone: nothing more comes into the copy.
            time.sleep(LAST_BLOCK_S)
            return self.recorder.newest()

    @property
    def bridge_port(self) -> str:
        return self.tap

    def followed_count(self) -> int:
        """Frames that came here after :meth:`hold` and went into the tunnel."""
        return self.gate.get(Word.RELEASED) + self.gate.get(Word.DIVERTED)

    def mark(self, frame: bytes) -> None:
        """Into the tunnel, behind everything that has come."""
        self._to_tunnel.send(NO_OFFLOAD + frame)
        self._sent += 1

    @property
    def tunnel_sent(self) -> int:
        """Frames that have been handed to the tunnel; what the other host has got out of it must be as many."""
        return self._sent + self.gate.get(Word.DIVERTED)

    def follow(self) -> None:
        """The guest has gone after all, after another :meth:`hold`: what has waited follows it, then everything that comes."""
        self.gate.mode = Mode.CLOSE
        self._sent += pump.empty(self.gate, self._park, self._to_tunnel).sent
        self.gate.mode = Mode.DIVERT

    def take_back(self) -> None:
        """The guest stays: what followed it comes back, then what the other host sends back. What comes here waits. Again: nothing."""
        if self._brought is not None:
            return
        self.hold()
        self.gate.set(Word.EXIT_IFINDEX, 0)
        self._lengthen_queue()
        self._brought = self._bring_back()
        self._tunnelled_before = self.gate.get(Word.TUNNELLED)
        self.gate.attach_exit(self.tunnel, netdev.index_of(self.tap), self.settings.mac)

    def _bring_back(self) -> Reopened:
        """What has followed the guest, but for what was stranded: that waits in its tap still."""
        assert self._way is not None, "nothing has followed it"
        sent = self.tunnel_sent
        followed = _complete(self._way.followed, self._way.sender) or self._way.followed.newest()
        copied = [one.data for one in followed if one is not NOT_COPIED]
        theirs = [one for one in copied if not self._is_ours(one)][::-1]
        back = list(self._not_stranded(theirs))
        with closing(Sender(self.tap, MARK)) as to_tap:
            to_tap.send(NO_OFFLOAD + spare_frame())
            for frame in back:
                to_tap.send(frame)
        return Reopened(len(back), max(0, sent - len(copied)))

    def _not_stranded(self, followed: list[bytes]) -> Iterator[bytes]:
        late = self._stranded_late.copy()
        for frame in islice(followed, self._stranded_sent, None):
            late[frame] -= 1
            if late[frame] < 0:
                yield frame

    def _is_ours(self, frame: bytes) -> bool:
        """An end marker, as if from the guest itself; a fence; or what the host itself sends by the tunnel."""
        ours = (self.settings.mac, fence.SOURCE, names.TUNNEL_MAC)
        return frame[VNET_HEADER_BYTES + 6 : VNET_HEADER_BYTES + 12] in ours

    def given_back(self) -> int:
        """Frames that the other host has sent back."""
        return self.gate.get(Word.TUNNELLED) - self._tunnelled_before

    def reopen(self) -> Reopened:
        """The guest runs on here after all: what followed it comes back, in order, then everything passes."""
        self.take_back()
        assert self._brought is not None
        given_back = self.given_back()
        with closing(Sender(self.tap, MARK)) as to_tap:
            self.gate.mode = Mode.CLOSE
            pumped = pump.empty(self.gate, self._park, to_tap)
            self.gate.mode = Mode.PASS
        frames = self._brought.frames + given_back + pumped.sent
        no_room = self.gate.counts().overflow
        return Reopened(frames, self._brought.missing + pumped.missing + self._missing + no_room)

    def _lengthen_queue(self) -> None:
        """A guest that does not run yet takes nothing: its tap must have room for all that comes back."""
        packets = self.settings.bounds.packets + SPARE_PACKETS
        if netdev.get_queue_length(self.tap) < packets:
            netdev.set_queue_length(self.tap, packets)

    def give_room_back(self) -> None:
        """The ring as it was, unless more than that still waits for a guest that runs."""
        if self.gate.mode is not Mode.PASS:
            with suppress(OSError):  # the guest has gone: nothing gets in, and its tap may go just now
                netdev.set_queue_length(self.tap, self._queue_length)
        elif netdev.exists(self.tap):
            with closing(Sender(self.tap, MARK)) as to_tap:
                ring.shorten(self.gate, self._park, to_tap, self._queue_length, self.unread)

    def stop_groups(self) -> None:
        """Broadcast and multicast go into the tunnel another way now (the old bridge's port)."""
        self.gate.set(Word.DROP_GROUP, 1)

    def counts(self) -> GateCounts:
        return self.gate.counts()

    def retire(self) -> None:
        """The guest runs elsewhere and the old path is empty: give back all but the gate and the tunnel, and never :meth:`turn`."""
        self.gate.verify()
        self._parts.close()

    def close(self, keep_tunnel: bool = False) -> None:
        """Everything of ours off this host, but for the tunnel where the old host's bridge goes on forwarding into it."""
        self.give_room_back()
        self.gate.close()
        self._parts.close()
        if not keep_tunnel:
            tunnel.delete(self.tunnel)


def _complete(recorder: Recorder, sender: Sender) -> Iterator[RecordedFrame] | None:
    """All frames of a copy, newest first; None if it does not get complete in time.

    They come over in blocks, some ms late: a frame of ours, sent by ``sender`` into the recorded device, shows when all are there.
    """
    mark = local_frame(_NOBODY, _US, secrets.token_bytes(46))
    sender.send(NO_OFFLOAD + mark)
    deadline = time.monotonic() + _COPY_WAIT_S
    while time.monotonic() < deadline:
        newest = recorder.newest()
        first = next(newest, None)
        if first is not None and first.data[VNET_HEADER_BYTES:] == mark:
            return newest
        recorder.wait(0.01)
    return None
