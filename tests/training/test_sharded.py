"""Two processes that hold half of everything learn what two that hold all of it learn."""

import pytest
import torch

from genconv.checkpoint import read
from tests.training.test_ddp import SPOILT, train

SHARED = ("--trainer.strategy", "fsdp", "--trainer.gradient_clip_val", "1.0")
WATCHED = """
from torch.distributed.fsdp import FSDPModule

def keep(self):
    assert isinstance(self, FSDPModule)
    weights = {name: weight.to_local() for name, weight in self.energy.named_parameters()}
    torch.save(weights, Path(__file__).with_name(f"rank{self.global_rank}.pt"))

main(sys.argv[1:])
"""


@pytest.mark.slow
def test_shares_learn_what_copies_learn_and_resume(tmp_path):
    steps = ("--trainer.max_steps", "6", "--trainer.gradient_clip_val", "1.0")
    copies, _ = train(tmp_path / "copies", *steps)
    shares, said = train(tmp_path / "shares", *steps, *SHARED)
    assert said.count("trained:") == 1
    for part in ("state_dict", "current_model_state"):
        assert copies[part].keys() == shares[part].keys()
        for name, weight in copies[part].items():
            torch.testing.assert_close(shares[part][name], weight, rtol=1e-4, atol=1e-5)
    moments = [saved["optimizer_states"][0]["state"] for saved in (copies, shares)]
    assert moments[0].keys() == moments[1].keys()
    for key, one in moments[0].items():
        torch.testing.assert_close(moments[1][key]["exp_avg"], one["exp_avg"], rtol=1e-3, atol=1e-5)
    # whole again, for everyone who reads it
    assert read(tmp_path / "shares" / "two", "cpu").updates == 6
    train(tmp_path / "half", "--trainer.max_steps", "4", *SHARED)
    resumed, _ = train(tmp_path / "half", *steps, *SHARED, "--ckpt_path", "last")
    for name, weight in shares["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name
    for mine, theirs in zip(shares["chains"], resumed["chains"], strict=True):
        assert torch.equal(mine["buffer"]["images"], theirs["buffer"]["images"])


@pytest.mark.slow
def test_shares_are_skipped_and_put_back_too(tmp_path):
    program = SPOILT[: SPOILT.index("def keep")] + WATCHED.replace(
        "main(", "EnergyMatching.training_step, EnergyMatching.on_train_end = spoilt, keep\nmain("
    )
    (tmp_path / "spoilt.py").write_text(program)
    flags = ("--trainer.max_steps", "35", "--samples.every", "0", *SHARED)
    saved, _ = train(tmp_path, *flags, program=[str(tmp_path / "spoilt.py")])
    assert saved["guard"]["skipped"] == 9
    assert saved["guard"]["attempts"] == 1
    one, two = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    for name, weight in saved["state_dict"].items():
        name = name.removeprefix("energy.")
        assert one[name].isfinite().all()
        # a share is cut along the first axis
        assert len(one[name]) + len(two[name]) == len(weight)
        assert len(one[name]) == -(-len(weight) // 2)
