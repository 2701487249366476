"""A wrong rig file is refused with the file, the key and what was expected."""

import pytest
import yaml
from hiwm_rig.contract import RigFileError, builtin_rigs, load_rig, parse_rig


def good() -> dict:
    joint = {"name": "a", "lower": -1.0, "upper": 1.0, "max_velocity": 2.0}
    return {
        "name": "tiny",
        "arms": [{"joints": [joint], "home": [0.0]}],
        "cameras": [{"name": "front", "width": 8, "height": 6}],
    }


def test_every_shipped_rig_file_is_valid():
    assert "push_t" in builtin_rigs()
    for name in builtin_rigs():
        rig = load_rig(name)
        assert len(rig.home) == len(rig.joints)


def test_the_topics_are_those_of_realsense2_camera():
    camera = load_rig("push_t").camera("front")
    assert camera.image_topic == "/camera/front/color/image_raw"
    assert camera.info_topic == "/camera/front/color/camera_info"
    assert camera.frame_id == "front_color_optical_frame"


def test_an_unknown_camera_is_named_with_those_there_are():
    with pytest.raises(KeyError, match=r"wrist.*front"):
        load_rig("push_t").camera("wrist")


def broken(change) -> str:
    raw = good()
    change(raw)
    return yaml.safe_dump(raw)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r.pop("arms"), r"key 'arms'"),
        (lambda r: r.update(colour="red"), r"key 'colour'"),
        (lambda r: r["cameras"][0].update(width=-3), r"key 'cameras.0.width'.*greater than 0"),
        (lambda r: r["cameras"][0].update(encoding="yuv"), r"key 'cameras.0.encoding'.*rgb8"),
        (lambda r: r["arms"][0].update(home=[0.0, 1.0]), r"home must have 1 values"),
        (lambda r: r["arms"][0].update(home=[4.0]), r"home of joint 'a' \(4.0\) is outside \[-1.0, 1.0\]"),
        (lambda r: r["arms"][0]["joints"][0].update(lower=2.0), r"lower \(2.0\) must be below upper"),
        (lambda r: r["arms"][0]["joints"][0].update(max_velocity="fast"), r"max_velocity.*valid number"),
        (lambda r: r["arms"][0].update(command="not a topic"), r"key 'arms.0.command'"),
        (lambda r: r["cameras"].append(r["cameras"][0]), r"camera names must be unique"),
        (lambda r: r.update(arms=r["arms"] * 2), r"joint names must be unique over all arms"),
        (lambda r: r.update(schema_version=9), r"key 'schema_version'"),
        (lambda r: r.update(control_rate_hz=0), r"key 'control_rate_hz'"),
    ],
)
def test_a_wrong_rig_file_names_file_key_and_expectation(change, expected):
    with pytest.raises(RigFileError, match=expected) as error:
        parse_rig(broken(change), "my_rig.yaml")
    assert str(error.value).startswith("my_rig.yaml")


def test_text_that_is_no_yaml_or_no_mapping_is_refused():
    with pytest.raises(RigFileError, match=r"x\.yaml: not YAML"):
        parse_rig("a: [1", "x.yaml")
    with pytest.raises(RigFileError, match="expected a mapping"):
        parse_rig("- 1\n- 2", "x.yaml")


def test_a_missing_rig_names_those_there_are(tmp_path):
    with pytest.raises(RigFileError, match="push_t"):
        load_rig("no_such_rig")
    with pytest.raises(RigFileError, match="no such rig file"):
        load_rig(tmp_path / "none.yaml")
