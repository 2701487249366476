"""The options describe the graph, and wrong options say what was expected."""

import json
from pathlib import Path

import pytest
import yaml
from hiwm_bringup.graph import GraphError, build_graph, default_options, parse_assignments
from hiwm_bringup.paths import dds_profile, parameter_file, share_dir

from hiwm_bringup import graph


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("push_t_world", "push_t_base"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    return tmp_path


def names(root: Path, *words: str) -> list[str]:
    return [spec.name for spec in build_graph(parse_assignments(words), root)]


def test_the_default_is_the_world_rig_with_policy_and_arbiter(root):
    assert names(root) == ["world_rig", "policy", "arbiter"]


def test_every_part_can_be_chosen(root):
    assert names(root, "rig:=sim", "policy:=none") == ["sim_rig", "arbiter"]
    assert names(root, "record:=/tmp/x")[-1] == "recorder"
    assert names(root, "rig:=replay", f"bag:={root}") == ["replay_rig", "policy", "arbiter"]
    assert names(root, "operator:=scripted")[-1] == "scripted_operator"


def test_policy_and_arbiter_start_with_the_same_parameters_on_every_rig(root):
    specs = {rig: build_graph(parse_assignments([f"rig:={rig}"]), root)[1:] for rig in ("sim", "world")}
    assert specs["sim"] == specs["world"]


def test_the_device_of_the_models_is_the_parameter_files_unless_it_is_given(root):
    for words, expected in (((), None), (("device:=cuda",), "cuda")):
        specs = {spec.name: spec for spec in build_graph(parse_assignments(words), root)}
        assert [specs[name].parameters.get("device") for name in ("world_rig", "policy", "arbiter")] == [
            expected
        ] * 2 + [None]


def test_arms_without_ports_are_emulated_and_arms_with_ports_are_not(root):
    emulated = names(root, "rig:=physical", "operator:=leader")
    assert {"emulated_follower", "follower_arm", "emulated_leader", "leader_arm"} <= set(emulated)
    words = ["rig:=physical", "operator:=leader", "follower_ports:=/dev/a", "leader_ports:=file"]
    specs = {spec.name: spec for spec in build_graph(parse_assignments(words), root)}
    assert not [name for name in specs if name.startswith("emulated")]
    assert specs["follower_arm"].parameters["ports"] == "/dev/a"
    assert specs["leader_arm"].parameters["ports"] == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rig"], "expected name:=value, got 'rig'"),
        (["robot:=sim"], "unknown option 'robot'; known are rig, operator"),
        (["rig:=moon"], r"rig:=moon: expected one of sim, world, physical"),
        (["rig:=replay"], "rig:=replay needs bag:=DIR"),
        (["rig:=replay", "bag:=/nowhere"], "needs bag:=DIR .a recording., got '/nowhere'"),
        (["seed:=x"], "seed:=x: expected a whole number"),
        (["rig_file:=nope"], "rig_file:=nope"),
        (["rig:=physical", "rig_file:=droid", "policy:=none"], r"no section hardware.follower for the arms"),
        (["operator:=leader", "rig_file:=droid", "policy:=none", "rig:=sim"], r"no section hardware.leader"),
        (["operator:=playback"], "needs playback:="),
        (["world:=/nowhere"], r"world:=/nowhere: no model there"),
        (["policy:=/nowhere"], r"policy:=/nowhere: no model there"),
    ],
)
def test_options_that_describe_no_graph_say_what_was_expected(root, words, expected):
    with pytest.raises(GraphError, match=expected):
        build_graph(parse_assignments(words), root)


def test_every_option_is_described():
    assert all(len(option.help) > 10 for option in graph.OPTIONS)
    assert parse_assignments([]) == default_options()


def test_parameter_and_layout_files_can_be_read():
    assert "/**" in yaml.safe_load(parameter_file().read_text())
    assert "hiwm_shm" in dds_profile().read_text()
    assert json.loads((share_dir() / "layouts" / "hiwm_foxglove.json").read_text())["layout"]
    assert yaml.safe_load((share_dir() / "layouts" / "hiwm.rviz").read_text())["Visualization Manager"]


def test_the_executables_of_the_graph_are_those_of_the_packages(root, tmp_path):
    src = Path(__file__).resolve().parents[2]
    (tmp_path / "leader.json").touch()
    for words in (
        ["operator:=scripted", "record:=x"],
        ["rig:=sim", "operator:=playback", f"playback:={tmp_path}/leader.json"],
        ["rig:=physical", "operator:=leader"],
    ):
        for spec in build_graph(parse_assignments(words), root):
            assert f'"{spec.executable} = {spec.package}.' in (src / spec.package / "setup.py").read_text()
