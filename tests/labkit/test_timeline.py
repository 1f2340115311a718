"""Messages laid out in time: rounds of a tree, of a ring, of a chain, however the receives were posted."""

from __future__ import annotations

import pytest

from labkit.timeline import timeline
from labkit.traffic import Message


def send(peer, size=8):
    return Message("send", (), "float32", size, peer)


def recv(peer, size=8):
    return Message("recv", (), "float32", size, peer)


def rounds(traffic):
    return max(trip.end for trip in timeline(traffic))


def test_a_tree_takes_fewer_rounds_than_a_root_that_tells_everybody_or_a_chain():
    assert rounds([[send(1), send(2)], [recv(0), send(3)], [recv(0)], [recv(1)]]) == 2
    assert rounds([[send(1), send(2), send(3)], [recv(0)], [recv(0)], [recv(None)]]) == 3
    assert rounds([[send(1)], [recv(0), send(2)], [recv(1), send(3)], [recv(2)]]) == 3


@pytest.mark.parametrize("receives_first", [False, True])
def test_on_a_ring_all_links_work_at_once(receives_first):
    def step(r):
        pair = [send((r + 1) % 4), recv((r - 1) % 4)]
        return pair[::-1] if receives_first else pair

    trips = timeline([step(r) * 3 for r in range(4)])
    assert [trip.start for trip in trips] == [0] * 4 + [1] * 4 + [2] * 4


def test_bytes_take_their_time():
    (trip,) = timeline([[send(1, 100)], [recv(0, 100)]], alpha=2.0, beta=50.0)
    assert (trip.sender, trip.receiver, trip.bytes, trip.start, trip.end) == (0, 1, 100, 0.0, 4.0)


@pytest.mark.parametrize("traffic", [[[send(1)], []], [[], [recv(0)]]])
def test_what_does_not_pair_up_is_refused(traffic):
    with pytest.raises(ValueError, match="a message is"):
        timeline(traffic)
