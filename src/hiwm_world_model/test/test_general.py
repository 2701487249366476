from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_data.dataset import Dataset
from hiwm_rig.contract import load_rig
from hiwm_world_model.general import GeneralConfig, GeneralWorldModel
from hiwm_world_model.general.borrow import borrow
from hiwm_world_model.general.colour import to_planes, to_rgb
from hiwm_world_model.general.network import warp
from hiwm_world_model.general.open_loop import open_loop_errors
from hiwm_world_model.general.prepare import prepare_droid, prepare_world
from hiwm_world_model.general.training import make_spec, read_overrides, train
from hiwm_world_model.interface import ModelError, State, TrainOptions, stack_states
from hiwm_world_model.registry import load_world_model, world_model_names
from hiwm_world_model.rollouts import held_out

sys.path.insert(0, str(Path(__file__).parent))
from general_scene import SMALL, draw, motion, record, rig, rig_file

DROID = Path(__file__).resolve().parents[4] / "shared" / "data" / "droid_subset"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("general")
    return record(folder), rig_file(folder), folder


@pytest.fixture(scope="module")
def trained(recorded):
    data, rig_path, folder = recorded
    out = folder / "model"
    train(TrainOptions(data=(data,), out=out, rig=str(rig_path), overrides=SMALL))
    return out


@pytest.fixture(scope="module")
def scene():
    joints, actions = motion(30, np.random.default_rng(7))
    images = {c.name: draw(joints, (c.height, c.width), k) for k, c in enumerate(rig().cameras)}
    return images, joints, actions


def first_state(model: GeneralWorldModel, scene, rows=(5,)) -> State:
    images, joints, _ = scene
    times = np.array(rows)[:, None] + np.arange(-1, 1)
    return model.encode({k: v[times] for k, v in images.items()}, joints[times])


def test_the_trained_model_is_closer_than_the_repeated_frame(trained, recorded):
    report = open_loop_errors(load_world_model(trained), Dataset(recorded[0]), (5, 10), max_windows=12)
    for row in report["horizons"].values():
        assert row["mse"]["model"] < 0.6 * row["mse"]["repeat"]
        assert row["changed_mae"]["model"] < 0.8 * row["changed_mae"]["repeat"]
        assert row["joints"]["model"] < 0.2 * row["joints"]["repeat"]


def test_an_untrained_model_repeats_the_frame(scene):
    torch.manual_seed(0)
    model = GeneralWorldModel(make_spec(rig()), GeneralConfig(height=48, width=64, arm_layer=False))
    state = first_state(model, scene)
    before = model.render(state)
    after = model.step(state, scene[2][5:6]).images
    for camera, image in before.items():
        assert np.abs(after[camera].astype(int) - image).mean() < 6


def test_shapes_follow_the_rig_for_sizes_that_are_no_multiple_of_anything(trained, scene):
    model = load_world_model(trained)
    result = model.step(first_state(model, scene, (5, 9)), scene[2][[5, 9]])
    assert result.images["near"].shape == (2, 50, 66, 3)
    assert result.images["far"].shape == (2, 40, 48, 3)
    assert result.joints.shape == (2, 3) and result.success_probability.shape == (2,)
    assert np.isfinite(model.features(result.state).numpy()).all()


def test_a_step_is_deterministic_and_survives_serialisation(trained, scene):
    model = load_world_model(trained)
    state = model.step(first_state(model, scene), scene[2][5:6]).state
    again = State.from_bytes(state.to_bytes(), type(state.context).from_bytes(state.context.to_bytes()))
    one, two = model.step(state, scene[2][6:7]), model.step(again, scene[2][6:7])
    assert one.state.to_bytes() == two.state.to_bytes()
    assert all(np.array_equal(one.images[c], two.images[c]) for c in one.images)


def test_saving_keeps_every_weight(trained, scene, tmp_path):
    model = load_world_model(trained)
    model.save(tmp_path / "copy")
    copy = load_world_model(tmp_path / "copy")
    actions = scene[2][5:6]
    one, two = model.step(first_state(model, scene), actions), copy.step(first_state(copy, scene), actions)
    assert one.state.to_bytes() == two.state.to_bytes()


def test_a_batch_is_what_its_rows_are_alone(trained, scene):
    model = load_world_model(trained)
    rows = (4, 9, 15)
    states = [first_state(model, scene, (r,)) for r in rows]
    actions = scene[2][list(rows)]
    together = model.step(stack_states(states), actions)
    for i, state in enumerate(states):
        alone = model.step(state, actions[i : i + 1])
        for camera, image in alone.images.items():
            assert np.abs(image[0].astype(int) - together.images[camera][i]).max() <= 2
        np.testing.assert_allclose(alone.joints[0], together.joints[i], atol=1e-5)


def test_a_state_of_three_droid_views_fits_the_snapshot_limit():
    spec = make_spec(load_rig("droid"))
    model = GeneralWorldModel(spec, read_overrides("droid", {})[0])
    images = {c.name: np.zeros((1, 1, c.height, c.width, 3), np.uint8) for c in spec.cameras}
    state = model.encode(images, np.zeros((1, 1, 8), np.float32))
    result = model.step(state, np.zeros((1, 8), np.float32))
    assert len(result.state.to_bytes()) <= 64 * 1024
    assert result.images["wrist"].shape == (1, 192, 320, 3)


def test_success_is_learned_from_labels_and_stays_open_without_them(trained, recorded, tmp_path):
    model, data = load_world_model(trained), Dataset(recorded[0])
    labels = data.column("next.success")
    rows = np.concatenate([np.arange(e.start, e.start + e.length) for e in held_out(data)])
    images = {c: data.images(c)[rows][:, None] for c in data.cameras}
    said = model.success(model.encode(images, data.column("observation.state")[rows][:, None])).numpy()
    assert said[labels[rows]].mean() > said[~labels[rows]].mean() + 0.2
    plain = record(tmp_path, episodes=4, length=12, labels=False)
    out = tmp_path / "plain"
    train(TrainOptions(data=(plain,), out=out, rig=str(recorded[1]), smoke=True, overrides=SMALL))
    quiet = load_world_model(out)
    assert np.allclose(quiet.success(first_state(quiet, _scene_of(plain))).numpy(), 0.5)


def _scene_of(root: Path):
    data = Dataset(root)
    images = {c: data.images(c) for c in data.cameras}
    return images, data.column("observation.state"), data.column("action")


def test_an_interrupted_training_takes_up_its_finished_stages(recorded, tmp_path, caplog):
    options = TrainOptions(data=(recorded[0],), out=tmp_path / "m", rig=str(recorded[1]), smoke=True, overrides=SMALL)
    train(options)
    first = (tmp_path / "m" / "model.safetensors").read_bytes()
    (tmp_path / "m" / "training" / "success.safetensors").unlink()
    train(options)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == first


def test_a_run_of_another_size_is_refused_by_name(recorded, tmp_path):
    options = TrainOptions(data=(recorded[0],), out=tmp_path / "m", rig=str(recorded[1]), smoke=True, overrides=SMALL)
    train(options)
    other = TrainOptions(**{**options.__dict__, "overrides": {**SMALL, "channels": "40"}})
    with pytest.raises(ModelError, match="other settings"):
        train(other)


def test_the_arm_layer_and_training_windows_run_for_every_camera(recorded, tmp_path):
    overrides = {**SMALL, "arm_layer": "true", "arm_channels": "8", "crop": "32"}
    out = tmp_path / "arm"
    train(TrainOptions(data=(recorded[0],), out=out, rig=str(recorded[1]), smoke=True, overrides=overrides))
    model = load_world_model(out)
    scene = _scene_of(recorded[0])
    result = model.step(first_state(model, scene), scene[2][5:6])
    assert result.images["far"].shape == (1, 40, 48, 3)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [({"colour": "red"}, "unknown key 'colour'"), ({"height": "50"}, "multiple of 8"), ({"batch": "no"}, "'batch'")],
)
def test_a_wrong_override_names_the_key(overrides, expected):
    with pytest.raises(ModelError, match=expected):
        read_overrides("push_t", overrides)


def test_a_missing_camera_is_named(trained, scene):
    model = load_world_model(trained)
    with pytest.raises(ValueError, match="'far' is missing"):
        model.encode({"near": scene[0]["near"][None, :1]}, scene[1][None, :1])


def test_colours_survive_the_planes():
    ramp = torch.linspace(0, 1, 16)
    image = torch.stack([ramp.expand(16, 16), ramp.flip(0).expand(16, 16), ramp.expand(16, 16).T])[None]
    smooth = torch.nn.functional.interpolate(image, (64, 64), mode="bilinear")
    assert (to_rgb(*to_planes(smooth)) - smooth).abs().max() < 0.02


def test_the_flow_says_where_a_pixel_comes_from():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 5] = 1.0
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2.0  # each pixel takes what lies two columns to its right
    assert warp(image, flow)[0, 0, 3, 3] == pytest.approx(1.0, abs=1e-5)


def test_a_prepared_world_starts_from_held_out_frames_and_has_a_motion(recorded, tmp_path, monkeypatch):
    from hiwm_world_model.env import WorldRigEnv
    from hiwm_world_model.general import prepare

    monkeypatch.setattr(
        prepare, "train", lambda o: train(TrainOptions(**{**o.__dict__, "smoke": True, "overrides": SMALL}))
    )
    made = prepare_world(recorded[0], str(recorded[1]), tmp_path)
    motion_ = json.loads(made.leader.read_text())
    assert motion_["joint_names"] == list(rig().joint_names) and motion_["rate_hz"] == 10.0
    assert json.loads((tmp_path / "evaluation.json").read_text())["horizons"]["10"]["windows"] > 0
    assert "MSE repeat" in (made.model / "README.md").read_text()
    data = Dataset(recorded[0])
    episode = data.episodes[motion_["episode"]]
    env = WorldRigEnv.from_directory(made.model, rig())
    shown = env.reset(motion_["start"])
    np.testing.assert_allclose(shown.joints, data.column("observation.state")[episode.start], atol=1e-6)
    assert episode.meta["split"] == "val"
    for target in motion_["positions"][:3]:
        shown = env.step(np.array(target))
    assert shown.images["near"].shape == (50, 66, 3)


def test_a_directory_without_an_arm_to_take_over_is_refused(trained, tmp_path):
    with pytest.raises(ModelError, match="holds 'joints'"):
        borrow(tmp_path)
    with pytest.raises(ModelError, match="holds 'arm'"):  # this model has no arm layer
        borrow(trained)


def test_general_is_a_registered_model():
    assert "general" in world_model_names()


@pytest.mark.skipif(not DROID.is_dir(), reason=f"real robot data is not at {DROID}")
def test_droid_episodes_become_a_virtual_robot(tmp_path, monkeypatch):
    from hiwm_world_model.general import prepare

    monkeypatch.setattr(prepare, "train", lambda o: train(TrainOptions(**{**o.__dict__, "smoke": True})))
    monkeypatch.setattr(prepare, "HORIZONS", (1, 3))
    monkeypatch.setattr(prepare, "TRUST_HORIZON", 4)
    source = tmp_path / "few"
    for name in ("train/6", "val/199"):  # the shortest episode of each split
        (source / "annotation" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "annotation" / f"{name}.json").symlink_to(DROID / "annotation" / f"{name}.json")
    (source / "videos").symlink_to(DROID / "videos")
    made = prepare_droid(source, tmp_path / "out")
    assert set(made.evaluation["horizons"]["3"]["per_camera"]) == {"exterior_1", "exterior_2", "wrist"}
    limits = load_rig("droid").joints
    positions = np.array(json.loads(made.leader.read_text())["positions"])
    assert (positions >= [j.lower for j in limits]).all() and (positions <= [j.upper for j in limits]).all()
