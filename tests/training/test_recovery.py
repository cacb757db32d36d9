import numpy as np
import pytest
import torch

from genconv.checkpoint import Trained, read
from genconv.data.guess import guess
from genconv.data.holes import holes, interpolated
from genconv.energy import GenerativeConvNet, UNetEnergy
from genconv.errors import UserError
from genconv.images import save_gif
from genconv.sampling import Chain
from genconv.seeds import derive
from genconv.tasks.measurement import Mask
from genconv.tasks.recover import recover
from genconv.tasks.recover_command import main as edit
from genconv.train import main as train
from genconv.training import RecoveryMatching
from genconv.training.recovery import recovery_loss


def waves(n, space, seed=0):
    """Plane waves in one to three dimensions, which straight lines cut short."""
    generator = torch.Generator().manual_seed(seed)
    phase = 6.3 * torch.rand(n, 1, *[1] * len(space), generator=generator)
    for axis, side in enumerate(space):
        shape = [1] * (2 + len(space))
        shape[2 + axis] = side
        phase = phase + (1.2 if axis == 0 else 0.4) * torch.arange(side).view(shape)
    return phase.sin()


@pytest.mark.parametrize("start", ["interpolation", "smooth", "grey"])
def test_the_guess_itself_has_loss_1(start):
    x, missing = waves(4, (8, 4)), holes("random", 4, (8, 4))
    energy = GenerativeConvNet(widths=(4,), silent=True)
    assert recovery_loss(energy, x, missing, start=start).item() == pytest.approx(1.0)


@pytest.mark.parametrize("start", ["interpolation", "smooth", "grey"])
def test_the_truth_has_loss_0(start):
    x, missing = waves(3, (8, 4)), holes("random", 3, (8, 4))
    guessed = guess(x, missing, start)

    def energy(z):  # whose gradient at the guess is guess - x
        return ((guessed - x) * z).flatten(1).sum(1)

    assert recovery_loss(energy, x, missing, start=start).item() < 1e-10


def test_the_guess_that_was_asked_for_is_that_of_each_update(monkeypatch):
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4,))
    x = waves(2, (8, 4))
    losses = []
    for start in ("interpolation", "smooth"):
        module = RecoveryMatching(energy, masks=("random",), start=start)
        monkeypatch.setattr(module, "log", lambda *a, **b: None)
        monkeypatch.setattr(RecoveryMatching, "global_step", 0)
        losses.append(module.training_step((x, None), 0).item())
        missing = holes("random", 2, (8, 4), derive(module.seed, "holes", 0, 0))
        assert losses[-1] == recovery_loss(energy, x, missing, start=start).item()
    assert losses[0] != losses[1]


def test_each_image_counts_as_a_share():
    x, missing = waves(2, (8, 4)), holes("dropped", 1, (8, 4)).expand(2, -1, -1, -1)
    x[1] = 0.01 * x[0]
    guess = interpolated(x, missing)

    def energy(z):  # half the way for the first, none for the second
        return (torch.tensor([0.5, 0.0]).view(2, 1, 1, 1) * (guess - x) * z).flatten(1).sum(1)

    assert recovery_loss(energy, x, missing).item() == pytest.approx((0.25 + 1) / 2, rel=1e-4)


def test_what_is_never_known_is_neither_seen_nor_counted():
    x, missing = waves(3, (8, 4)), holes("random:0.3", 3, (8, 4), seed=1)
    never = holes("random:0.3", 3, (8, 4), seed=2)
    torch.manual_seed(0)
    energy = GenerativeConvNet(widths=(4,))
    loss = recovery_loss(energy, x, missing, never=never)
    other = torch.where(never, torch.full_like(x, 7.0), x)
    assert recovery_loss(energy, other, missing, never=never).item() == loss.item()
    # and the share is that of what is counted
    silent = GenerativeConvNet(widths=(4,), silent=True)
    assert recovery_loss(silent, x, missing, never=never).item() == pytest.approx(1.0)
    guess = interpolated(x, missing | never)
    counted = missing & ~never

    def half(z):  # half the way where it counts, nothing else
        return (0.5 * counted * (guess - x) * z).flatten(1).sum(1)

    assert recovery_loss(half, x, missing, never=never).item() == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("space", [(16,), (12, 6), (8, 6, 6)])
def test_learns_what_straight_lines_miss_in_any_dimension(space):
    torch.manual_seed(0)
    energy = GenerativeConvNet(1, len(space), widths=(16, 16), scale=5.0, silent=True)
    module = RecoveryMatching(energy, masks=("frames:0.25",))
    assert not module.uses_buffer
    optimizer = torch.optim.Adam(energy.parameters(), lr=1e-2)
    missing = holes("frames:0.25", 16, space)
    for i in range(60):
        loss = recovery_loss(energy, waves(16, space, i), missing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # one step of the chain, from the interpolation, as `edit inpaint` takes it
    truth = waves(16, space, 1000)
    trained = Trained(energy, module.chain, (1, *space), 60)
    found = recover(
        energy,
        trained.chain,
        trained.shape,
        Mask(~missing),
        truth * ~missing,
        start=interpolated(truth, missing),
    )
    known = ~missing.expand_as(truth)
    torch.testing.assert_close(found[known], truth[known])
    left = (found - truth).square().mean()
    assert left < 0.5 * (interpolated(truth, missing) - truth).square().mean()


def test_a_body_is_led_from_grey_to_what_is_expected_of_it():
    # in the hole each voxel is like its shell with probability 3/4, so its mean is half the shell
    torch.manual_seed(0)
    energy = UNetEnergy(1, 3, width=8, multipliers=(1, 2), blocks=1, patch=2)
    missing = holes("box:0.5", 16, (8, 8, 8))
    optimizer = torch.optim.Adam(energy.parameters(), lr=5e-3)

    def bodies(side):
        same = torch.where(torch.rand(16, 1, 8, 8, 8) < 0.75, 1.0, -1.0)
        return side * torch.where(missing, same, 1.0)

    for _ in range(60):
        x = bodies(torch.randint(2, (16, 1, 1, 1, 1)) * 2.0 - 1)
        optimizer.zero_grad()
        recovery_loss(energy, x, missing, start="grey").backward()
        optimizer.step()
    for side in (-1.0, 1.0):
        x = guess(bodies(side), missing, "grey").requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        assert (x - gradient)[missing].mean().item() == pytest.approx(side / 2, abs=0.1)


def test_a_start_is_refined_and_not_transported():
    # at the start already, a bowl around 0.25 pulls the unknown there and leaves the known alone
    truth = torch.full((2, 1, 4, 4), -0.5)
    missing = holes("box", 2, (4, 4))

    def bowl(x):
        return (x - 0.25).square().flatten(1).sum(1) / 2

    how = {"start": torch.zeros(2, 1, 4, 4)}
    chain = Chain(steps=1, step_size=0.5, temperature=0.0)
    found = recover(bowl, chain, (1, 4, 4), Mask(~missing), truth * ~missing, **how)
    assert found[missing].tolist() == pytest.approx([0.125] * int(missing.sum()))
    assert (found[~missing] == -0.5).all()


@pytest.fixture
def flight(tmp_path):
    """A clip of straight lines in time through which a bright block flies, and flags to train."""
    time = torch.arange(8).view(1, -1, 1, 1)
    truth = (20 * time + torch.arange(8).view(1, 1, 1, -1)).expand(3, 8, 8, 8).byte()
    mask = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    for i in range(1, 7):
        mask[:, i, 2:4, i - 1 : i + 1] = True
    np.savez(tmp_path / "seen.npz", images=truth.masked_fill(mask, 255).movedim(0, -1)[None])
    save_gif(tmp_path / "mask.gif", list((mask.byte() * 255).unbind(1)))
    flags = [
        *("--config", "video_background", "--data.name", str(tmp_path / "seen.npz")),
        *("--data.size", "8", "--model.hidden", str(tmp_path / "mask.gif"), "--name", "flight"),
        *("--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--trainer.devices", "1"),
        *("--model.energy.widths", "[4, 4]", "--model.energy.strides", "[1, 2]"),
        *("--runs", str(tmp_path / "runs")),
        *("--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"),
    ]
    return tmp_path, flags, truth, mask


def test_what_flies_through_a_clip_is_removed(flight):
    folder, flags, truth, _ = flight
    # 0: the straight lines are right, and are to stay what they are
    train([*flags, "--model.lr", "0.0"])
    run = folder / "runs" / "flight"
    assert read(run, "cpu").shape == (3, 8, 8, 8)
    where = [str(run), str(folder / "seen.npz"), "--mask", str(folder / "mask.gif")]
    edit("inpaint", [*where, "--start", "interpolation", "--draws", "1", "--out", f"{folder}/out"])
    with np.load(folder / "out" / "results.npz") as file:
        found = torch.from_numpy(file["images"])[0].movedim(-1, 0)
    assert torch.equal(found, truth)
    assert (folder / "out" / "mean" / "0.gif").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.crop", "[4, 8, 8]"], "leave out --data.crop"),
        (["--model.hidden", "nowhere.gif"], "nowhere.gif"),
        (["--model.hidden", "box:2"], "a share between 0 and 1"),
        (["--data.size", "4", "--model.hidden", "MASK"], "has shape"),
    ],
)
def test_a_mask_that_does_not_fit_the_clip_is_refused_before_anything_is_written(
    flight, flags, message
):
    folder, given, _, mask = flight
    np.savez(folder / "short.npz", images=mask[:, :5].byte().numpy()[..., None] * 255)
    flags = [flag.replace("MASK", str(folder / "short.npz")) for flag in flags]
    with pytest.raises(UserError, match=message):
        train([*given, *flags])
    assert not (folder / "runs" / "flight" / "config.yaml").exists()
