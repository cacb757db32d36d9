"""The order of batches."""

import pytest
import torch

from genconv.data.order import BatchOrder, IndexLoader
from genconv.errors import UserError


def test_an_epoch_is_a_permutation_cut_into_batches():
    order = BatchOrder(23, 5, seed=0)
    batches = list(order)
    assert len(batches) == len(order) == 4
    indices = torch.cat(batches)
    assert len(indices.unique()) == 20
    assert indices.max() < 23


def test_epochs_and_seeds_differ():
    orders = {
        tuple(torch.cat(BatchOrder(50, 10, seed).epoch(epoch)).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_batch_b_is_the_same_wherever_iteration_begins(workers):
    run = [batch for epoch in range(4) for batch in BatchOrder(23, 5, seed=3).epoch(epoch)]
    for served in (0, 1, 3, 4, 9):
        loader = IndexLoader(BatchOrder(23, 5, seed=3, served=lambda s=served: s), workers)
        assert len(loader) == 4
        batches = list(loader)
        assert len(batches) == 4
        for b, batch in enumerate(batches, served):
            assert torch.equal(batch, run[b])


def test_ranks_share_one_permutation():
    whole = torch.cat(BatchOrder(24, 24, seed=1).epoch(2))
    for rank in range(3):
        order = BatchOrder(24, 4, seed=1, rank=rank, world=3)
        assert len(order) == 2
        assert torch.equal(torch.cat(order.epoch(2)), whole[rank::3])


def test_uneven_ranks_have_as_many_batches():
    lengths = {len(list(BatchOrder(26, 4, 0, rank=rank, world=3))) for rank in range(3)}
    assert lengths == {2}


def test_a_small_set_is_one_batch():
    assert [len(batch) for batch in BatchOrder(7, 100, seed=0)] == [7]
    assert [len(batch) for batch in BatchOrder(7, 100, seed=0, rank=1, world=2)] == [3]


def test_a_loader_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(IndexLoader(BatchOrder(10, 2, seed=0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((5, 0, 0), "batch_size"), ((5, 1, -1), "seed"), ((2, 1, 0, lambda: 0, 0, 3), "shared")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        BatchOrder(*arguments)
