"""The page can be read anywhere, holds every number, and runs nothing but its own script."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from genconv.eval import SCORES
from genconv.eval.detection import NUMBERS
from genconv.eval.report import extremes, write_report

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "img", "link", "br", "input"}
BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
BROWSER = next(filter(None, BROWSERS), None)


class Page(HTMLParser):
    """Collects what the tests ask of a page, and that its elements close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.tables, self.script = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append({"text": "", **dict(attributes)})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "script" in self.open:
            self.script += text
        elif {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1]["text"] += text

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def numbers(auroc):
    rest = dict.fromkeys(NUMBERS, 0.25)
    return {
        **rest,
        "auroc": auroc,
        "intervals": {name: (auroc - 0.01, auroc + 0.01) for name in NUMBERS},
    }


def outcome(*names, inside="digits"):
    scores = ["energy", "typicality", "spectrum"]
    sets = {
        name: {score: numbers(0.3 + 0.1 * i + 0.05 * k) for i, score in enumerate(scores)}
        for k, name in enumerate(names)
    }
    sets[names[-1]]["typicality"] = {"error": f"3 of 7 images of {names[-1]} have no finite score"}
    told = {"split": "test", "n": 30}
    return {
        "protocol": {
            "genconv": "0.1.0",
            "energy": {"checkpoint": "runs/x", "weights_sha256": "ab" * 32, "shape": [1, 8, 8]},
            "validation": {"name": f"{inside} (validation)", **told},
            "in": {"name": inside, **told},
            "out": [{"name": name, **told} for name in names],
            "control": None,
            "scores": scores,
            "resamples": 1000,
            "seed": 5,
        },
        "sets": sets,
        "averages": {"far": {score: {"auroc": 0.5} for score in scores}},
    }


def images(n=60, seed=0, shape=(1, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, *shape), generator=generator).byte()


@pytest.fixture
def write(tmp_path):
    def write(made, name="report.html", pictures=True):
        names = [made["protocol"]["in"]["name"], *made["sets"]]
        shown = [extremes(name, images(), torch.arange(60.0)) for name in names]
        file = io.BytesIO()
        Image.new("RGB", (40, 30), "red").save(file, format="PNG")
        path = tmp_path / name
        write_report(
            path, made, shown, "typicality", {"ROC curves": file.getvalue()} if pictures else {}
        )
        return path

    return write


def test_every_number_is_there_and_sorts_by_its_value(write):
    made = outcome("uniform", "svhn")
    page = Page(write(made).read_text("utf-8"))
    first, *by_set, keys = page.tables
    assert [cell["text"].strip() for cell in first[0]] == [
        "score",
        "uniform",
        "svhn",
        "average: far",
    ]
    assert [row[0]["text"] for row in first[1:]] == ["energy", "typicality", "spectrum"]
    for row in first[1:]:
        for cell, name in zip(row[1:3], ("uniform", "svhn"), strict=True):
            value = made["sets"][name][row[0]["text"]].get("auroc")
            if value is None:
                assert (cell["text"], cell["data-value"]) == ("–", "NaN")
            else:
                assert cell["text"] == f"{value:.3f}"
                assert float(cell["data-value"]) == value
                assert (cell.get("class") == "best") == (row[0]["text"] == "spectrum")
    assert len(by_set) == 2
    row = by_set[0][1]
    assert row[1]["text"] == "0.300 0.290–0.310"
    assert [cell["data-value"] for cell in row[2:]] == ["0.25"] * 4
    told = {row[0]["text"]: row[1]["text"] for row in keys}
    assert told["energy.weights_sha256"] == "ab" * 32
    assert told["energy.shape"] == "[1, 8, 8]"
    assert told["control"] == "null"
    assert told["seed"] == "5"
    text = write(made).read_text("utf-8")
    assert "3 of 7 images of svhn have no finite score" in text
    for score in made["protocol"]["scores"]:
        first_words = SCORES[score].function.__doc__.split(":")[0][:12]
        assert first_words in text.replace("&#39;", "'")


def test_the_page_needs_nothing_but_itself(write):
    page = Page(write(outcome("uniform", "svhn")).read_text("utf-8"))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:"), tag
    assert not re.search(r"https?://|url\(|@import", page.script)
    pictures = [image["src"] for image in page.all("img")]
    # both ends of three sets, and one figure
    assert len(pictures) == 7
    for picture in pictures:
        raw = base64.b64decode(picture.removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
    assert all(image["alt"] for image in page.all("img"))
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")


def test_only_its_own_script_may_run(write):
    text = write(outcome("uniform", EVIL, inside='"><img src=x onerror=alert(1)>')).read_text(
        "utf-8"
    )
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "alert" not in page.script
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.replace("style-src 'unsafe-inline'", "")
    # the name itself is shown as it is
    assert EVIL in [cell["text"].strip() for cell in page.tables[0][0]]


def test_names_that_are_not_utf8_are_escaped(write):
    text = write(outcome("caf\udce9", "語")).read_text("utf-8")
    assert "caf\\udce9" in text
    assert "語" in text


def test_without_any_number_there_is_a_page(write):
    made = outcome("uniform")
    made["sets"]["uniform"] = {key: {"error": "diverged"} for key in made["protocol"]["scores"]}
    page = Page(write(made, pictures=False).read_text("utf-8"))
    cells = [cell for row in page.tables[0][1:] for cell in row[1:]]
    assert {cell["text"] for cell in cells} == {"–"}
    assert len(page.tables[0][0]) == 2


def tiles(end, n, side, columns):
    # 8x8 pixels are magnified four times
    with Image.open(io.BytesIO(end.picture)) as picture:
        scale, pad = 4, 2
        assert picture.width == pad + columns * (side * scale + pad)
        step = side * scale + pad
        pixels = [
            picture.getpixel((pad + step * (i % columns), pad + step * (i // columns)))
            for i in range(n)
        ]
    return pixels


def test_the_ends_of_a_set_are_its_extremes():
    levels = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    pictures = levels.byte().view(100, 1, 1, 1).expand(100, 1, 8, 8)
    shown = extremes("x", pictures, levels.double() / 10)
    most, least = shown.ends
    assert tiles(most, 16, 8, 8) == list(range(16))
    assert tiles(least, 16, 8, 8) == list(range(99, 83, -1))
    assert (most.first, most.last) == pytest.approx((0.0, 1.5))
    assert (least.first, least.last) == pytest.approx((9.9, 8.4))
    # a small set is cut in two, and one image is both ends
    most, least = extremes("x", pictures[:5], levels[:5].double()).ends
    assert (most.n, least.n) == (3, 3)
    assert extremes("x", pictures[:1], levels[:1].double()).ends[1].n == 1


@pytest.mark.parametrize("shape", [(2,), (1, 4, 8, 8), (2, 8, 8)])
def test_what_is_no_picture_is_not_shown(shape):
    assert "not shown" in extremes("x", images(3, shape=shape), torch.arange(3.0)).note


def test_what_is_not_finite_is_not_ordered():
    assert "finite" in extremes("x", images(3), None).note


DRIVER = """
const table = document.getElementById("auroc");
const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
const click = (column) => table.tHead.rows[0].cells[column].querySelector("button").click();
const seen = [order()];
for (const column of [2, 2, 0, 0]) { click(column); seen.push(order()); }
document.title = JSON.stringify(seen);
"""


@pytest.mark.slow
def test_a_browser_sorts_the_tables_and_runs_nothing_else(write, tmp_path):
    if BROWSER is None:
        pytest.skip("NO BROWSER: neither chromium nor google-chrome is installed here")
    path = write(outcome("uniform", EVIL))
    text = path.read_text("utf-8")
    # the driver is let in by a digest of its own; beside it a script that no digest lets in
    digest = base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    foreign = "<script>document.body.dataset.foreign = 'ran'</script>"
    path.write_text(text.replace("</body>", f"{foreign}<script>{DRIVER}</script></body>"), "utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    dom = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]
    assert json.loads(title) == [
        ["energy", "typicality", "spectrum"],
        # typicality has no number there and stays below, whichever way it is sorted
        ["spectrum", "energy", "typicality"],
        ["energy", "spectrum", "typicality"],
        ["energy", "spectrum", "typicality"],
        ["typicality", "spectrum", "energy"],
    ]
    assert "data-foreign" not in dom
    assert 'aria-sort="descending"' in dom
