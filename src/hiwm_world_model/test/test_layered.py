"""The layered model finds an unknown object without labels, and behaves as the interface promises.

One small training on a toy scene serves all tests; the bounds are far from the quality of a real training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_world_model.interface import CameraSpec, ModelSpec
from hiwm_world_model.layered import LayeredWorldModel, TrainSettings
from hiwm_world_model.layered.config import Sizes
from hiwm_world_model.layered.data import Recording
from hiwm_world_model.layered.discovery import find_clean_frames
from hiwm_world_model.layered.dynamics import PoseDynamics, mean_pose, spread
from hiwm_world_model.layered.encoder import crop, locate
from hiwm_world_model.layered.plane import PlaneView, image_to_pixels, pixels_to_image
from hiwm_world_model.layered.rotation import align
from hiwm_world_model.layered.stages import Run
from hiwm_world_model.layered.success import SuccessHead
from hiwm_world_model.layered.train import Pipeline
from hiwm_world_model.nets import ArmRenderer, make_accelerator
from hiwm_world_model.registry import load_world_model
from synthetic_scene import SIZE, Scene, make_scene

pytestmark = pytest.mark.timeout(600)  # the first test waits for the training

SETTINGS = TrainSettings(
    joint_steps=250, arm_steps=220, encoder_steps=170, render_steps=180, dynamics_steps=180, success_steps=120,
    image_batch=10, encoder_batch=32, dynamics_batch=48, discovery_frames=700, unroll=8,
)  # fmt: skip
SPEC = ModelSpec(
    rig="toy", joint_names=("x", "y"), cameras=(CameraSpec(name="top", height=SIZE, width=SIZE),), control_rate_hz=10
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene()


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layered")


@pytest.fixture(scope="module")
def model(scene: Scene, run_directory: Path) -> LayeredWorldModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = Run(run_directory, SETTINGS, make_accelerator("cpu"), progress=False)
    return Pipeline(scene.recording, SPEC, run).execute()


def held_out(recording: Recording, every: int = 3) -> np.ndarray:
    return recording.frame_numbers(validation=True)[::every]


def encode(model: LayeredWorldModel, scene: Scene, frames: np.ndarray):
    joints = scene.recording.joints[frames].numpy()[:, None]
    return model.encode({"top": scene.frames[frames][:, None]}, joints)


def test_object_is_found_without_labels(model: LayeredWorldModel, scene: Scene) -> None:
    frames = held_out(scene.recording)
    pose = encode(model, scene, frames).tensors["pose"]
    found = image_to_pixels(pose[:, :2], (SIZE, SIZE)).numpy()
    error = np.hypot(*(found - scene.poses[frames, :2]).T)
    assert np.median(error) < 1.0  # pixels
    turn = np.exp(1j * (pose[:, 2].numpy() - scene.poses[frames, 2]))
    off = np.degrees(np.abs(np.angle(turn * np.exp(-1j * np.angle(turn.mean())))))
    assert np.median(off) < 12.0  # the zero of the angle is the model's own


def test_sizes_are_measured_in_the_data(model: LayeredWorldModel) -> None:
    sizes = model.settings.sizes
    assert 6 < sizes.radius < 13
    assert 60 < sizes.area < 180
    assert 0.02 < sizes.residual_threshold < 0.4


def test_the_picture_shows_the_object_where_it_is(model: LayeredWorldModel, scene: Scene) -> None:
    frames = held_out(scene.recording)
    state = encode(model, scene, frames)
    pictures = model.render(state)["top"].astype(float)
    truth = scene.frames[frames].astype(float)
    below, _, _ = model.networks.arm_layer(scene.recording.joints[frames], model.networks.arm.background)
    without = (below.detach().permute(0, 2, 3, 1) * 255).clamp(0, 255).numpy()
    piece = (np.abs(truth - [40, 60, 220]).max(-1) < 60)[..., None]  # pixels of the piece
    assert (np.abs(pictures - truth) * piece).sum() < 0.5 * (np.abs(without - truth) * piece).sum()


def test_open_loop_beats_repeating_the_first_frame(model: LayeredWorldModel, scene: Scene) -> None:
    horizon = 12
    starts = np.asarray([e.start + t for e in scene.recording.spans(validation=True) for t in (1, 8, 15, 22)])
    moved = np.hypot(*(scene.poses[starts + horizon, :2] - scene.poses[starts, :2]).T)
    starts, moved = starts[moved > 2], moved[moved > 2]
    state = encode(model, scene, starts)
    for k in range(horizon):
        state = model.step(state, scene.recording.actions[starts + k]).state
    found = image_to_pixels(state.tensors["pose"][:, :2], (SIZE, SIZE)).numpy()
    error = np.hypot(*(found - scene.poses[starts + horizon, :2]).T)
    assert np.mean(error) < 0.8 * np.mean(moved)


def test_step_depends_on_nothing_but_state_and_action(model: LayeredWorldModel, scene: Scene) -> None:
    frames = held_out(scene.recording)[:2]
    state = encode(model, scene, frames[:1])
    action = np.array([[0.2, 0.1]], np.float32)
    first = model.step(state, action)
    other = encode(model, scene, frames[1:])
    for _ in range(3):
        other = model.step(other, -action).state
    again = model.step(state, action)
    assert np.array_equal(first.images["top"], again.images["top"])
    for key, value in first.state.tensors.items():
        assert torch.equal(value, again.state.tensors[key]), key
    restored = type(state).from_bytes(state.to_bytes(), type(state.context).from_bytes(state.context.to_bytes()))
    assert np.array_equal(model.step(restored, action).images["top"], first.images["top"])


def test_batch_equals_single(model: LayeredWorldModel, scene: Scene) -> None:
    frames = held_out(scene.recording)[:3]
    actions = np.array([[0.2, 0.1], [-0.3, 0.0], [0.5, 0.5]], np.float32)
    together = model.step(encode(model, scene, frames), actions)
    for i in range(3):
        alone = model.step(encode(model, scene, frames[i : i + 1]), actions[i : i + 1])
        assert np.allclose(alone.joints[0], together.joints[i], atol=1e-5)
        assert np.allclose(alone.state.tensors["pose"][0], together.state.tensors["pose"][i], atol=2e-2)
        difference = np.abs(alone.images["top"][0].astype(int) - together.images["top"][i])
        assert difference.mean() < 1.0


def test_background_of_the_first_frame_is_kept(model: LayeredWorldModel, scene: Scene) -> None:
    frame = held_out(scene.recording)[:1]
    pictures = scene.frames[frame].copy()
    pictures[:, 56:62, 2:8] = [250, 250, 0]  # something new in a corner that neither arm nor piece hides
    state = model.encode({"top": pictures[:, None]}, scene.recording.joints[frame].numpy()[:, None])
    for _ in range(2):
        state = model.step(state, scene.recording.joints[frame]).state
    corner = model.render(state)["top"][0, 58:60, 4:6].astype(int)
    assert np.abs(corner - [250, 250, 0]).max() < 20


def test_state_is_small_and_says_how_sure_it_is(model: LayeredWorldModel, scene: Scene) -> None:
    state = encode(model, scene, held_out(scene.recording)[:2])
    assert len(state.rows([0]).to_bytes()) < 4096
    before = model.features(state)
    for _ in range(5):
        state = model.step(state, np.zeros((2, 2), np.float32)).state
    after = model.features(state)
    assert before.shape == after.shape and bool(torch.isfinite(after).all())
    assert bool((state.tensors["doubt"] >= 0).all()) and float(state.tensors["age"].max()) == 5.0


def test_save_and_load_give_the_same_pictures(model: LayeredWorldModel, scene: Scene, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = load_world_model(tmp_path)
    frame = held_out(scene.recording)[:1]
    a, b = (m.step(encode(m, scene, frame), np.zeros((1, 2), np.float32)) for m in (model, loaded))
    assert np.array_equal(a.images["top"], b.images["top"])
    assert np.array_equal(a.success_probability, b.success_probability)


def test_finished_stages_are_not_run_again(model: LayeredWorldModel, scene: Scene, run_directory: Path) -> None:
    stamps = {p.name: p.stat().st_mtime_ns for p in run_directory.glob("*.safetensors")}
    run = Run(run_directory, SETTINGS, make_accelerator("cpu"), progress=False)
    again = Pipeline(scene.recording, SPEC, run).execute()
    assert {p.name: p.stat().st_mtime_ns for p in run_directory.glob("*.safetensors")} == stamps
    for key, value in model.weights().items():
        assert torch.equal(value, again.weights()[key]), key


def test_wrong_image_size_is_named(model: LayeredWorldModel) -> None:
    with pytest.raises(ValueError, match="expected images \\(64, 64, 3\\)"):
        model.encode({"top": np.zeros((1, 1, 32, 32, 3), np.uint8)}, np.zeros((1, 1, 2), np.float32))


def test_scene_without_object_is_refused(scene: Scene) -> None:
    still = np.zeros((200, SIZE, SIZE, 3), np.uint8)
    nothing = np.zeros((200, 2), np.float32)
    empty = Recording([still], nothing, nothing, scene.recording.episodes[:5])
    arm = ArmRenderer(2, (SIZE, SIZE))
    torch.nn.init.zeros_(arm.net[-2].weight)  # a trained arm: all that it has seen is the background
    with pytest.raises(ValueError, match="one object beside the arm"):
        find_clean_frames(arm, empty, np.arange(200))


# --- parts -----------------------------------------------------------------------------------------------------------
def test_plane_and_image_are_inverse() -> None:
    view = PlaneView(0.7, 0.3, 0.2)
    points = torch.rand(50, 2) * 1.6 - 0.8
    assert torch.allclose(view.to_image(view.to_plane(points)), points, atol=1e-5)
    pixels = torch.rand(5, 2) * 60
    assert torch.allclose(image_to_pixels(pixels_to_image(pixels, (48, 64)), (48, 64)), pixels, atol=1e-4)


def test_rotation_search_recovers_shifts() -> None:
    rng = np.random.default_rng(0)
    base = np.cumsum(rng.normal(size=(20, 180)), 1).astype(np.float32)
    base -= np.linspace(0, 1, 180)[None] * base[:, -1:]
    shifts = rng.integers(0, 180, 30)
    found, match = align(np.stack([np.roll(base, s, 1) for s in shifts]), 0, 5)
    error = np.angle(np.exp(1j * (found - found[0] - (shifts - shifts[0]) * 2 * np.pi / 180)))
    assert np.abs(error).max() < np.radians(2) and match.min() > 0.99


def test_locate_prefers_the_large_blob_and_crop_pads() -> None:
    inputs = torch.zeros(1, 4, 64, 64)
    inputs[:, :3, 30:40, 20:32] = 2.0
    inputs[:, :3, 5:7, 50:53] = 2.0
    centre = locate(inputs, Sizes(residual_threshold=0.1, radius=7, area=120))
    assert (centre[0] - torch.tensor([26, 35])).abs().max() <= 1
    window = crop(inputs, torch.tensor([[2, 2]]), 8)
    assert window.shape == (1, 4, 16, 16) and float(window.abs().sum()) == 0.0


def test_members_that_agree_have_no_spread() -> None:
    poses = torch.tensor([[[0.1, 0.2, 3.1]], [[0.1, 0.2, -3.1]]])
    assert torch.allclose(mean_pose(poses)[0, 2].abs(), torch.tensor(torch.pi), atol=1e-3)
    assert spread(poses)[0, 0] == 0 and spread(poses)[0, 1] < 0.05
    assert float(spread(poses[:1].repeat(3, 1, 1)).sum()) == 0


def test_dynamics_do_not_depend_on_where_zero_angle_is() -> None:
    model = PoseDynamics(2, PlaneView(0.9, 0.1, 0.2)).eval()
    q = torch.zeros(1, 4, 2)
    pose = torch.randn(3, 4, 3)
    full = pose + torch.tensor([0, 0, 2 * torch.pi])
    assert torch.allclose(model(pose, q, q)[..., :2], model(full, q, q)[..., :2], atol=1e-4)


def test_success_is_calibrated_to_the_true_share() -> None:
    head = SuccessHead(2)
    labels = (torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    logits = 3 * (labels - 0.5) + torch.randn(4000, generator=torch.Generator().manual_seed(1))
    head.calibrate(logits, labels)
    probability = torch.sigmoid(logits * head.calibration[0] + head.calibration[1])
    assert abs(float(probability.mean()) - 0.05) < 0.01
