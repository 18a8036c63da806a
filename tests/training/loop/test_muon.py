import pytest
import torch

from audiollm.training.loop.muon import Muon, orthogonalized

SHAPES = [(24, 16), (16, 24), (24, 16), (16, 16)]


def matrices(shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for matrix in made:
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    return made


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
def test_steps_are_those_of_torchs_muon():
    ours, theirs = matrices(), matrices()
    one = Muon(ours, lr=0.02, momentum=0.9, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        before = [matrix.detach().clone() for matrix in ours]
        one.step()
        other.step()
        for matrix, again, start in zip(ours, theirs, before, strict=True):
            # Torch computes in bfloat16, which has 8 bits of precision.
            assert (matrix - again).norm() < 0.02 * (matrix - start).norm()
            again.data.copy_(matrix.data)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 40), (2, 40, 8)])
def test_singular_values_come_near_one(shape):
    made = orthogonalized(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    assert made.shape == shape
    values = torch.linalg.svdvals(made.double())
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_a_matrix_does_not_depend_on_the_others_of_its_shape():
    together, alone = matrices(), matrices()
    optimizer = Muon(together, lr=0.1)
    ones = [Muon([matrix], lr=0.1) for matrix in alone]
    for each in (optimizer, *ones):
        each.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_a_matrix_without_a_gradient_and_a_gradient_of_zeros():
    idle, still, moved = matrices([(4, 4)] * 3)
    before = [matrix.detach().clone() for matrix in (idle, still, moved)]
    idle.grad = None
    still.grad.zero_()
    Muon([idle, still, moved], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(idle, before[0])
    assert torch.equal(still, before[1])
    assert not torch.equal(moved, before[2])


def test_the_step_is_as_large_as_that_of_adamw():
    (matrix,) = matrices([(64, 32)])
    before = matrix.detach().clone()
    Muon([matrix], lr=0.5, weight_decay=0.0).step()
    assert (matrix.detach() - before).square().mean().sqrt() == pytest.approx(0.2 * 0.5, rel=0.25)


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"Muon is for matrices, and a weight has shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


def test_a_closure_gives_the_loss():
    made = matrices()
    optimizer = Muon(made, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = sum(matrix.square().sum() for matrix in made)
        loss.backward()
        return loss

    assert optimizer.step(closure) > optimizer.step(closure)
