import importlib.util
import json

import pytest

from tests.benchmarks.speed.clock import OURS, compared, line
from tests.benchmarks.speed.command import main
from tests.benchmarks.speed.page import BEGIN, END
from tests.benchmarks.speed.peers import PLAIN


def test_a_ratio_is_the_median_over_rounds():
    # a round in which the machine was busy slows both
    times = {OURS: [1.0, 10.0, 2.0], "other": [2.0, 20.0, 8.0]}
    (row,) = compared("section", "network", "what", times, per=2)
    assert (row.ours, row.theirs, row.ratio) == (1000.0, 4000.0, 2.0)


def test_a_straight_line_is_found():
    fit = line("x", [1, 2, 4], [12.0, 14.0, 18.0])
    assert fit.offset == pytest.approx(10)
    assert fit.slope == pytest.approx(2)
    assert fit.r2 == pytest.approx(1)


def test_the_command_runs_and_writes_every_row(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"words\n\n{BEGIN}\nold\n{END}\n\nmore words\n")
    main(["--quick", "--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png")])
    main(["--only", "--given", str(tmp_path / "a.json"), "--page", str(page)])
    report = json.loads((tmp_path / "a.json").read_text())
    rows = report["rows"]
    timed = {(row["section"], row["network"]) for row in rows if row["ratio"] is not None}
    assert timed >= {
        ("chain step", "resnet"), ("chain step", "digits"), ("training update", "resnet"),
        ("training update", "digits"), ("training update", "unet"), ("replay buffer", "resnet"),
        ("evaluation", "resnet"), ("evaluation", "classifier"), ("memory", "resnet"),
        ("law of bfloat16 chains", "digits"), ("share of the hardware", "resnet"),
    }  # fmt: skip
    others = {row["against"] for row in rows if row["section"] == "training update"}
    assert PLAIN in others
    assert {name.split(" (")[0] for name in others} >= {
        "like igebm-pytorch", "like UvA DL tutorial 8", "like JEM"
    }  # fmt: skip
    if importlib.util.find_spec("torchebm") is None:
        assert [row["note"] for row in rows if row["against"] == "torchebm"] == [
            "not installed"
        ] * 4
    # both learn the same thing, one of them in bfloat16
    (loss,) = (row for row in rows if row["what"].startswith("its loss"))
    assert loss["ratio"] == pytest.approx(1, abs=0.02)
    assert [fit["what"] for fit in report["fits"]] == [
        "chains", "steps", "pixels of an image", "images in the buffer"
    ]  # fmt: skip
    assert (tmp_path / "a.png").stat().st_size > 0
    text = page.read_text()
    assert text.startswith(f"words\n\n{BEGIN}")
    assert text.endswith(f"{END}\n\nmore words\n")
    assert "old" not in text
    assert text.count("| resnet | step of 8 chains |") >= 6
    said = capsys.readouterr().out
    assert "growth" in said
    assert "genconv" in said
