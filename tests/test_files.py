"""Files that appear whole or not at all."""

import os

import pytest

from genconv.errors import UserError, command
from genconv.files import replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_in_a_new_folder(tmp_path):
    with replacing(tmp_path / "a" / "b" / "c.txt") as part:
        part.write_text("new")
        assert names(tmp_path / "a" / "b") == [part.name]
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"
    assert names(tmp_path / "a" / "b") == ["c.txt"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["c.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", ["old", None])
def test_an_error_changes_nothing(tmp_path, error, old):
    path = tmp_path / "c.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(error), replacing(path) as part:  # noqa: PT012 - torn on purpose
        part.write_text("torn")
        raise error
    assert names(tmp_path) == (["c.txt"] if old else [])
    assert old is None or path.read_text() == old


def test_a_writer_may_put_another_file_in_its_place(tmp_path):
    with replacing(tmp_path / "c.txt") as part:
        part.unlink()
        part.write_text("new")
    assert (tmp_path / "c.txt").read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "ours") as part:
            part.write_text("")
        (tmp_path / "any").touch()
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("old")
    path = tmp_path / "file" / "c.txt"
    with pytest.raises(UserError, match="choose another folder") as error, replacing(path):
        pass
    assert str(path) in str(error.value)
    assert (tmp_path / "file").read_text() == "old"


def test_commands_turn_user_errors_into_one_line(capsys):
    def wrong():
        raise UserError("no such file: a; give another")

    def interrupted():
        raise KeyboardInterrupt

    for main, code, line in [
        (wrong, 2, "error: no such file: a; give another\n"),
        (interrupted, 130, "interrupted\n"),
    ]:
        with pytest.raises(SystemExit) as stop:
            command(main)
        assert stop.value.code == code
        assert capsys.readouterr().err == line
    command(lambda: None)
