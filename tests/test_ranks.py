"""Two processes that torchrun starts make what one makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import genconv
from genconv.checkpoint import write
from genconv.data import load_images
from genconv.eval import SmallClassifier
from genconv.eval.ood_command import main as ood
from genconv.eval.quality_command import main as quality
from genconv.eval.score_command import main as score
from genconv.images import save_png
from genconv.ranks import Ranks, ranks
from genconv.sample import main as sample

SCORE = ("--calibrate", "digits", "--score", "energy", "refine_drop", "--batch-size", "8")
OOD = ("--in", "digits", "--out", "uniform", "--scores", "energy", "refine_distance", "-n", "40",
       "--batch-size", "16")  # fmt: skip
QUALITY = ("--data", "digits", "-n", "1030", "--precision", "bf16")
# what is registered first runs last
PROGRAM = """
import atexit
import sys
from torch import distributed
atexit.register(lambda: print("still in a group:", distributed.is_initialized()))
from genconv.eval.ood_command import main as ood
from genconv.eval.quality_command import main as quality
from genconv.eval.score_command import main as score
from genconv.sample import main as sample
energy, here, *flags = sys.argv[1:]
sample([energy, "-n", "37", "--batch-size", "8", "--out", here + "/two.npz"])
for name, main in [("score", score), ("ood", ood), ("quality", quality)]:
    own = flags[flags.index(name) + 1:]
    main([energy, *own[:own.index("end")]])
"""


def test_one_process_agrees_with_itself():
    team = ranks()
    assert team == Ranks(0, 1)
    assert team.first
    assert team.agree("value") == "value"
    with team.first_alone():
        assert team.gather(3) == [3]


@pytest.fixture
def one_thread():
    """As the processes have: sums by several threads differ in the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_two_processes_draw_and_judge_as_one_does(tmp_path, trained, capfd):
    energy, folder = tmp_path / "energy", tmp_path / "folder"
    write(trained, energy)
    digits = load_images("digits", "test").images
    for i, image in enumerate(digits[:21]):
        save_png(folder / f"{i:02}.png", image)
    (folder / "no_image.png").write_text("none")
    torch.manual_seed(0)
    SmallClassifier(1, 10, 8).save(tmp_path / "network.safetensors")
    features = ("--features", str(tmp_path / "network.safetensors"))

    def flags(where: str) -> dict[str, list[str]]:
        at = tmp_path / where
        return {
            "score": [str(folder), *SCORE, "--csv", f"{at}/scores.csv", "--root", f"{at}/data"],
            "ood": [*OOD, "--folder", f"{at}/ood", "--root", f"{at}/data"],
            "quality": [*QUALITY, *features, "--json", f"{at}/q.json", "--root", f"{at}/data"],
        }

    for name, main in [("score", score), ("ood", ood), ("quality", quality)]:
        main([str(energy), *flags("one")[name]])
    sample([str(energy), "-n", "37", "--batch-size", "8", "--out", str(tmp_path / "one.npz")])
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [word for name, own in flags("two").items() for word in (name, *own, "end")]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(tmp_path / "program.py"), str(energy), str(tmp_path), *words],
        env=os.environ
        | {"PYTHONPATH": str(Path(genconv.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (np.load(tmp_path / f"{name}.npz")["images"] for name in ("one", "two"))
    assert (one == two).all()
    assert len(one) == 37
    one, two = tmp_path / "one", tmp_path / "two"
    assert (one / "scores.csv").read_bytes() == (two / "scores.csv").read_bytes()
    # the stretches are gone
    assert len(list(two.glob("scores.csv*"))) == 2
    whole, joined = (json.loads((at / "scores.csv.json").read_text()) for at in (one, two))
    assert whole == joined
    for name in ("ood/ood.json", "q.json"):
        whole, shared = (json.loads((at / name).read_text()) for at in (one, two))
        assert whole == shared, name
    assert done.stdout.count("still in a group: False") == 2
    # only one of them speaks
    assert done.stdout.count("37 images") == 1
