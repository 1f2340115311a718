"""When each message would have traveled, in the alpha-beta model, from what the ranks recorded."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.traffic import Message


@dataclass(frozen=True)
class Trip:
    """One message from `sender` to `receiver`, `bytes` long, on its way from `start` to `end`."""

    sender: int
    receiver: int
    bytes: int
    start: float
    end: float


def timeline(traffic: Sequence[Sequence[Message]], alpha: float = 1.0, beta: float = math.inf) -> list[Trip]:
    """Lay the sends and receives of all ranks (`traffic[r]`: those of rank r, in order) out in time.

    A message of m bytes takes alpha + m / beta. A rank sends one message at a time and receives one at a time, and may
    do both at once. What a rank sends waits for everything that it asked for before; where all would wait for one
    another, as with receives that are posted early, it doesn't. With the default the times count rounds.

    Returns the trips in the order in which they start. Raises ValueError where sends and receives don't pair up.
    """
    return _Clock(traffic, alpha, beta).run()


class _Clock:
    def __init__(self, traffic, alpha: float, beta: float):
        self.alpha, self.beta = alpha, beta
        self.sends = [deque() for _ in traffic]  # of each rank: (receiver, bytes, receives that stand before it)
        self.wanted = [deque() for _ in traffic]  # of each rank: the senders it expects, None for any
        self.arrived = [[] for _ in traffic]  # of each rank: when its receives have ended
        self.out = defaultdict(float)  # when a rank may send again, and receive again
        self.into = defaultdict(float)
        for rank, messages in enumerate(traffic):
            for m in messages:
                if m.op == "send":
                    self.sends[rank].append((m.peer, m.bytes, len(self.wanted[rank])))
                elif m.op == "recv":
                    self.wanted[rank].append(m.peer)

    def run(self) -> list[Trip]:
        trips = []
        while any(self.sends):
            possible = self.next_trips()
            if not possible:
                self.let_go()
                possible = self.next_trips()
            if not possible:
                raise ValueError("a message is sent that nobody receives")
            trip = min(possible, key=lambda t: (t.start, t.sender))
            self.sends[trip.sender].popleft()
            self.wanted[trip.receiver].remove(self._slot(trip))
            self.arrived[trip.receiver].append(trip.end)
            self.out[trip.sender] = self.into[trip.receiver] = trip.end
            trips.append(trip)
        if any(self.wanted):
            raise ValueError("a message is expected that nobody sends")
        return sorted(trips, key=lambda t: (t.start, t.sender))

    def next_trips(self) -> list[Trip]:
        """The first unsent message of each rank, if it can go now."""
        trips = []
        for sender, queue in enumerate(self.sends):
            if not queue:
                continue
            receiver, size, before = queue[0]
            here = self.arrived[sender][:before]
            if len(here) == before and self._expects(receiver, sender):
                start = max([self.out[sender], self.into[receiver], *here])
                trips.append(Trip(sender, receiver, size, start, start + self.alpha + size / self.beta))
        return trips

    def let_go(self) -> None:
        """Nobody can send: the receives that stand before the sends were posted early, and nothing waits for them."""
        for sender, queue in enumerate(self.sends):
            if queue:
                receiver, size, before = queue[0]
                queue[0] = receiver, size, min(before, len(self.arrived[sender]))

    def _expects(self, receiver: int, sender: int) -> bool:
        return any(peer in (sender, None) for peer in self.wanted[receiver])

    def _slot(self, trip: Trip) -> int | None:
        return trip.sender if trip.sender in self.wanted[trip.receiver] else None
