"""The images are not built here; what can be checked without building them is."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hiwm_bringup.graph import build_graph, parse_assignments
from hiwm_bringup.paths import project_root

ROOT = project_root()
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", file.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.name)
def test_every_run_step_is_a_script_of_the_project_that_has_been_copied_by_then(file):
    copied: list[str] = []
    steps = 0
    for instruction, arguments in instructions(file):
        if instruction == "COPY":
            copied += [a for a in arguments.split()[:-1] if not a.startswith("--")]
        if instruction == "RUN":
            steps += 1
            script = arguments.split()[0]
            assert (ROOT / script).is_file() and (ROOT / script).stat().st_mode & 0o111, script
            assert any(script == c or script.startswith(f"{c}/") for c in copied), f"{script} is not in the image yet"
            assert not set(arguments) & set("&|;<>`"), f"not a plain script: RUN {arguments}"
    assert steps >= 3


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.name)
def test_images_run_as_a_user_and_what_they_copy_is_there(file):
    steps = instructions(file)
    users = [arguments for instruction, arguments in steps if instruction == "USER"]
    assert users and users[-1] != "root"
    assert dict(steps)["FROM"].startswith("ros:jazzy-ros-base")
    sources = [a for i, arguments in steps if i == "COPY" for a in arguments.split()[:-1] if not a.startswith("--")]
    assert all((ROOT / source).exists() for source in sources)
    sets = re.search(r'HIWM_REQUIREMENTS="([^"]+)"', file.read_text())
    assert sets and all((ROOT / "requirements" / f"{name}.txt").is_file() for name in sets[1].split())


def test_the_robots_requirements_are_pinned_as_the_others():
    core = set((ROOT / "requirements" / "core.txt").read_text().splitlines())
    robot = [
        line for line in (ROOT / "requirements" / "robot.txt").read_text().splitlines() if not line.startswith("#")
    ]
    assert set(robot) <= core and not any(line.startswith(("torch", "mujoco")) for line in robot)


def test_compose_names_images_and_graphs_that_there_are():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert (service["network_mode"], service["ipc"]) == ("host", "host"), name
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        command = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in service["command"]]
        assert command == ["bash"] or (command[0] == "./hiwm" and (ROOT / "hiwm").is_file())
        if command[:2] == ["./hiwm", "up"]:
            build_graph(parse_assignments(command[2:]), ROOT)
    robot = compose["services"]["robot"]
    assert "/dev:/dev" in robot["volumes"] and {"c 188:* rmw", "c 189:* rmw"} <= set(robot["device_cgroup_rules"])


def test_the_udev_rules_name_the_ports_of_the_rig_files():
    rules = (DOCKER / "udev" / "99-hiwm.rules").read_text()
    for line in rules.splitlines():
        assert not line or re.fullmatch(r'#.*|(?:[A-Z]+(?:\{[^}]+\})?(?:==|\+=|=)"[^"]*"(?:, |$))+', line), line
    assert 'SYMLINK+="hiwm_follower"' in rules and 'SYMLINK+="hiwm_leader"' in rules
    assert 'latency_timer}="1"' in rules


def test_the_list_of_packages_is_the_one_in_the_readme():
    script = ROOT / "tools" / "system_packages.sh"
    listed = subprocess.run([script, "list"], capture_output=True, text=True, check=True).stdout.split()
    readme = re.search(r"sudo apt install (.+)", (ROOT / "README.md").read_text())
    assert readme and sorted(readme[1].split()) == sorted(listed)
    robot = subprocess.run([script, "list", "robot"], capture_output=True, text=True, check=True).stdout.split()
    assert set(robot) < set(listed) and "libusb-1.0-0" in robot
    assert subprocess.run([script, "remove"], capture_output=True, check=False).returncode == 2
