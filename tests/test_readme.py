"""The README's Python runs, and its shell names only what there is."""

import os
import re
from pathlib import Path

import pytest
import torch

from genconv.training.cli import find_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_python_runs():
    run = os.environ.get("GENCONV_TEST_DIGITS")
    if run is None:
        pytest.skip("GENCONV_TEST_DIGITS names no run of the quickstart")
    [code] = [code for language, code in BLOCKS if language == "python"]
    names = {}
    exec(code.replace('"runs/digits"', repr(run)), names)
    energy = names["energy"]
    assert energy(names["digits"]).mean() < energy(names["noise"]).mean()
    assert (names["ones"][..., :4] + 1).abs().mean() < 0.3
    assert isinstance(names["digits"], torch.Tensor)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_configs_named_in_the_table_exist_and_all_are_named():
    named = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    for name in re.findall(r"--config (\w+)", README):
        find_config(name)
