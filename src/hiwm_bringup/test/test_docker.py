"""The images are not built here; what can be checked without building them is."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hiwm_bringup.graph import build_graph, parse_assignments
from hiwm_bringup.paths import project_root
from hiwm_rig.contract import load_rig

ROOT = project_root()
DOCKER = ROOT / "docker"
IN_IMAGE = Path("/opt/hiwm")
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


def services() -> dict[str, Any]:
    """The services of compose.yaml, with every variable at its default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DOCKER / "compose.yaml").read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


@pytest.mark.parametrize("name", services())
def test_a_service_starts_an_image_and_a_command_that_there_are(name):
    service = services()[name]
    assert (service["network_mode"], service["ipc"]) == ("host", "host")
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    profile = Path(service["environment"]["FASTRTPS_DEFAULT_PROFILES_FILE"])
    assert (ROOT / profile.relative_to(IN_IMAGE)).is_file()
    command = service["command"]
    if command[:2] == ["./hiwm", "up"]:
        build_graph(parse_assignments(command[2:]), ROOT)
    elif command[:2] == ["ros2", "run"]:
        package, executable = command[2:4]
        assert f'"{executable} = {package}.' in (ROOT / "src" / package / "setup.py").read_text()
        assert (ROOT / command[command.index("--params-file") + 1]).is_file()
    else:
        assert command == ["bash"] or command[:2] == ["./hiwm", "check"]


def test_a_policy_runs_beside_the_robot_in_the_image_that_has_torch():
    found = services()
    policy = found["policy"]
    assert set(policy["profiles"]) == {"physical", "emulated"} and policy["image"] == "hiwm-workstation"
    for robot in ("robot", "emulated"):
        assert "policy:=none" in found[robot]["command"]
        assert found[robot]["environment"] == policy["environment"], "they have to find each other"
    words = policy["command"]
    values = dict(w.split(":=") for option, w in pairwise(words) if option == "-p")
    assert (ROOT / values["policy"] / "config.json").is_file() and values["rig_file"] == "push_t"


def test_a_calibrated_rig_file_reaches_every_service():
    text = (DOCKER / "compose.yaml").read_text()
    for name, service in services().items():
        assert f"../out:{IN_IMAGE}/out" in service["volumes"], name
    assert text.count("${HIWM_RIG_FILE:-push_t}") == len(services()) - 1, "all but the shell"


def test_the_robots_container_has_the_devices_and_the_hosts_groups_and_no_more():
    robot = services()["robot"]
    assert "/dev:/dev" in robot["volumes"] and {"c 188:* rmw", "c 189:* rmw"} <= set(robot["device_cgroup_rules"])
    assert robot["group_add"] == [20, 46, 44], "dialout, plugdev and video of Debian"
    assert not {"cap_add", "ulimits", "privileged"} & set(robot)


def test_the_file_for_a_gpu_speaks_of_services_with_torch():
    gpu = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"]
    assert {services()[name]["image"] for name in gpu} == {"hiwm-workstation"} and {"world", "policy"} <= set(gpu)
    for service in gpu.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def udev_rules() -> Path:
    (file,) = (DOCKER / "udev").glob("*.rules")
    return file


def rig_file_ports() -> set[str]:
    rigs = [load_rig(file) for file in sorted((ROOT / "src/hiwm_rig/hiwm_rig/rigs").glob("*.yaml"))]
    hardware = [arm.hardware for rig in rigs for arm in rig.arms if arm.hardware is not None]
    return {part.port for h in hardware for part in (h.follower, h.leader) if part is not None}


def test_the_udev_rules_name_the_ports_of_every_rig_file():
    rules = udev_rules().read_text()
    for line in rules.splitlines():
        assert not line or re.fullmatch(r'#.*|(?:[A-Z]+(?:\{[^}]+\})?(?:==|\+=|=)"[^"]*"(?:, |$))+', line), line
    assert {f"/dev/{name}" for name in re.findall(r'SYMLINK\+="(\w+)"', rules)} == rig_file_ports()
    assert 'latency_timer}="1"' in rules


def test_udev_rules_that_tag_uaccess_come_before_the_rule_that_reads_the_tag():
    file = udev_rules()
    assert "uaccess" in file.read_text() and 50 < int(file.name[:2]) < 73
    for text in (DOCKER / "README.md", file):
        assert f"udev/{file.name}" in text.read_text()


def test_the_list_of_packages_is_the_one_in_the_readme():
    script = ROOT / "tools" / "system_packages.sh"
    listed = subprocess.run([script, "list"], capture_output=True, text=True, check=True).stdout.split()
    readme = re.search(r"sudo apt install (.+)", (ROOT / "README.md").read_text())
    assert readme and sorted(readme[1].split()) == sorted(listed)
    robot = subprocess.run([script, "list", "robot"], capture_output=True, text=True, check=True).stdout.split()
    assert set(robot) < set(listed) and "libusb-1.0-0" in robot
    assert subprocess.run([script, "remove"], capture_output=True, check=False).returncode == 2
