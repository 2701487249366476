"""The command line answers at once, knows its commands, and refuses the rest helpfully."""

import subprocess
import sys

import pytest

from hiwm_bringup import cli


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from hiwm_bringup.cli import main; main(['--help']);"
        "bad = {'torch', 'rclpy', 'numpy', 'mujoco'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for command in cli.COMMANDS:
        assert " ".join(command.words) in result.stdout


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda c: " ".join(c.words))
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*command.words, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: hiwm {' '.join(command.words)}" in out and "example" in out


def test_unknown_commands_get_the_list_and_exit_code_2(capsys):
    assert cli.main(["fly"]) == cli.EXIT_USAGE
    assert "no command 'fly'" in capsys.readouterr().err
    assert cli.main(["train", "robot"]) == cli.EXIT_USAGE
    assert "hiwm train world" in capsys.readouterr().err
    assert cli.main([]) == cli.EXIT_USAGE


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch, capsys):
    def interrupted(command, argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["up"]) == cli.EXIT_INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_up_refuses_wrong_options_with_exit_code_2(capsys):
    assert cli.main(["up", "rig:=physical", "rig_file:=droid"]) == 2
    assert "no section hardware.follower" in capsys.readouterr().err
