"""The one command of the studies."""

import pytest

from invlib.studies.__main__ import STUDIES, main


def test_help_names_every_study_with_its_purpose(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["--help"])
    assert ending.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for name, study in STUDIES.items():
        assert f"{name} {study.__doc__.splitlines()[0].partition(': ')[2][:30]}" in told


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_tells_its_options(name, capsys):
    with pytest.raises(SystemExit) as ending:
        main([name, "--help"])
    assert ending.value.code == 0 and "--out" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["sweep"]])
def test_without_a_study_there_is_nothing_to_do(arguments, capsys):
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "STUDY" in told and told.count("\n") == 1
