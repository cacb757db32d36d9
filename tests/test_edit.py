"""The list of editing commands."""

import pytest

from genconv.edit import COMMANDS, main
from genconv.errors import UserError


def test_lists_what_there_is(capsys):
    main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_other_words_are_named():
    with pytest.raises(UserError, match="no command 'paint'; choose from inpaint, "):
        main(["paint"])


@pytest.mark.parametrize("name", ["inpaint", "denoise", "upscale", "colourise", "deblur"])
def test_each_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"genconv.edit {name}" in capsys.readouterr().out
