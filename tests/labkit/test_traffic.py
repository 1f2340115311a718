import rank_functions as on_rank

from labkit import Message, launch


def test_collectives_are_recorded_with_their_payload():
    first, second = launch(on_rank.collectives, ranks=2)
    assert first == [
        Message("all_reduce", (3,), "float32", 12),
        Message("broadcast", (2, 2), "float64", 32, peer=1),
        Message("send", (5,), "float32", 20, peer=1),
        Message("all_gather", (3,), "float32", 12),
        Message("reduce_scatter", (3,), "float32", 24),
        Message("reduce", (3,), "float32", 12, peer=1),
        Message("gather", (3,), "float32", 12, peer=0),
        Message("scatter", (3,), "float32", 24, peer=0),
        Message("all_reduce", (7,), "float32", 28),
        first[-1],
    ]
    assert (first[-1].op, first[-1].bytes) == ("barrier", 0)
    assert second[2] == Message("recv", (5,), "float32", 20, peer=0)
    assert second[7] == Message("scatter", (3,), "float32", 12, peer=0)


def test_batches_and_coalesced_collectives():
    for rank, messages in enumerate(launch(on_rank.batched, ranks=2)):
        assert messages == [
            Message("send", (4,), "float32", 16, peer=1 - rank),
            Message("recv", (4,), "float32", 16, peer=1 - rank),
            Message("all_reduce", (2,), "float32", 8),
            Message("all_reduce", (3,), "float32", 12),
        ]


def test_peers_are_global_ranks():
    _, sender, receiver = launch(on_rank.in_a_group, ranks=3)
    assert sender == [Message("send", (1,), "float32", 4, peer=2)]
    assert receiver == [Message("recv", (1,), "float32", 4, peer=1)]


def test_backward_is_recorded_also_from_cpp():
    for hook, ddp in launch(on_rank.in_backward, ranks=2):
        assert hook == [Message("all_reduce", (6,), "float32", 24)]
        assert ddp == [Message("all_reduce", (8,), "float32", 32)]  # weight and bias, in one bucket
