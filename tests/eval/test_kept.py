"""Arrays that are made once and found again."""

import numpy as np
import pytest

from genconv.errors import UserError
from genconv.eval.kept import kept


@pytest.fixture
def keep(tmp_path):
    calls = []

    def keep(n=3, names=("a", "b"), path=tmp_path / "new" / "kept.npz"):
        def make():
            calls.append(n)
            return {"a": np.arange(n), "b": np.ones((n, 2), np.float32)}

        return kept(path, names, n, make)

    return keep, calls, tmp_path / "new" / "kept.npz"


def test_made_once(keep):
    keep, calls, _ = keep
    for _ in range(3):
        found = keep()
        assert found["a"].tolist() == [0, 1, 2]
        assert found["b"].dtype == np.float32
    assert calls == [3]


@pytest.mark.parametrize("spoil", ["torn", "flipped", "empty", "fewer", "foreign"])
def test_what_is_not_whole_is_made_again(keep, spoil):
    keep, calls, path = keep
    keep()
    content = bytearray(path.read_bytes())
    if spoil == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif spoil == "flipped":
        content[content.index(np.arange(3).tobytes())] ^= 1
        path.write_bytes(content)
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "fewer":
        np.savez(path, a=np.arange(2), b=np.ones((2, 2)))
    else:
        np.savez(path, c=np.arange(3))
    assert keep()["a"].tolist() == [0, 1, 2]
    assert keep()["a"].tolist() == [0, 1, 2]
    assert calls == [3, 3]


def test_a_place_that_cannot_be_written_to(keep, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        keep[0](path=tmp_path / "file" / "kept.npz")
