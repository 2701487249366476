"""The virtual robot in process is a rig like any other, and models keep what they are when saved and loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hiwm_rig.contract import load_rig
from hiwm_rig.types import RigEnv
from hiwm_world_model.env import WorldRigEnv
from hiwm_world_model.interface import Context, ModelError, State, stack_states
from hiwm_world_model.library import StartLibrary
from hiwm_world_model.registry import load_world_model, register_world_model, world_model_names
from hiwm_world_model.session import SessionError
from tiny_world_model import TinyWorldModel, tiny_frames

from hiwm_world_model import bench

RIG = load_rig("push_t")
HOME = np.array(RIG.home)


def library() -> StartLibrary:
    starts = [tiny_frames(seed=i) for i in range(3)]
    return StartLibrary(
        {"front": np.stack([s[0]["front"] for s in starts])}, np.stack([s[1] for s in starts]), np.arange(3)
    )


@pytest.fixture
def env(tiny: TinyWorldModel):
    with WorldRigEnv(tiny, RIG, library()) as env:
        yield env


def test_it_is_a_rig(env: WorldRigEnv) -> None:
    assert isinstance(env, RigEnv)
    first = env.reset(seed=4)
    assert first.images["front"].shape == (128, 128, 3) and first.joints.shape == (7,) and first.stamp_ns == 0
    second = env.step(HOME)
    assert second.stamp_ns == 100_000_000 and second.velocities.shape == (7,)


def test_a_seed_is_a_start_and_neighbouring_seeds_differ(env: WorldRigEnv) -> None:
    a, b, c = (env.reset(seed=s).images["front"] for s in (0, 1, 3))
    assert np.array_equal(a, c) and not np.array_equal(a, b)


def test_targets_are_kept_within_position_and_velocity_limits(env: WorldRigEnv) -> None:
    start = env.reset(seed=0).joints[0]
    env.step(HOME + np.array([2.0, 0, 0, 0, 0, 0, 0]))
    assert env.target[0] == pytest.approx(start + 3.0 * 0.1, abs=1e-6)
    for _ in range(30):
        env.step(HOME + np.array([9.0, 0, 0, 0, 0, 0, 0]))
    assert env.target[0] == pytest.approx(3.1)


def test_success_is_what_the_model_believes(env: WorldRigEnv, tiny: TinyWorldModel) -> None:
    env.reset(seed=0)
    env.step(HOME)
    assert env.succeeded() == (env.success_probability >= 0.5)
    before = env.moment.snapshot.step
    assert env.finish() == env.succeeded() and env.moment.snapshot.step > before


def test_after_a_jump_the_arm_stands_still_where_the_state_says(env: WorldRigEnv) -> None:
    env.reset(seed=0)
    for k in range(5):
        env.step(HOME + 0.1 * k * np.array([1, 1, 0, 0, 0, 0, 0]))
    there = env.rollback(steps=3)
    assert np.allclose(env.target, there.joints, atol=1e-6) and not there.velocities.any()
    assert env.moment.snapshot.step == 2


def test_a_model_of_another_rig_is_refused(tiny: TinyWorldModel) -> None:
    with pytest.raises(SessionError, match="trained for another rig: joints"):
        WorldRigEnv(tiny, load_rig("droid"), library())


def test_a_saved_model_steps_exactly_as_before(tiny: TinyWorldModel, start, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    loaded = load_world_model(tmp_path)
    assert loaded.identity.startswith("tiny:") and loaded.spec == tiny.spec
    images, joints = {"front": start[0]["front"][None, None]}, start[1][None, None]
    a, b = (m.step(m.encode(images, joints), joints[:, 0] + 0.1) for m in (tiny, loaded))
    assert np.array_equal(a.images["front"], b.images["front"]) and np.isnan(a.trust).all()
    with pytest.raises(ValueError, match="action must be"):
        tiny.step(a.state, np.zeros((2, 7)))


def test_a_state_survives_being_stored_split_and_joined() -> None:
    state = State({"a": torch.rand(3, 4).t().contiguous().t(), "n": torch.arange(3)}, Context({"c": torch.rand(3, 2)}))
    back = State.from_bytes(state.to_bytes(), Context.from_bytes(state.context.to_bytes()))
    assert all(torch.equal(back.tensors[k], v) for k, v in state.tensors.items())
    assert back.context.digest() == state.context.digest() != state.rows([0]).context.digest()
    joined = stack_states([state.rows([2]), state.rows([0, 1])])
    assert torch.equal(joined.tensors["n"], torch.tensor([2, 0, 1])) and joined.batch == 3
    assert state.rows([1]).repeat(5).batch == 5


def test_checkpoints_that_cannot_be_used_are_named(tiny: TinyWorldModel, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    config = (tmp_path / "config.json").read_text()
    for text, message in (
        ("{", "not JSON"),
        ('{"model": "tiny"}', "key 'spec' is missing"),
        (config.replace('"tiny"', '"unheard_of"'), "no world model named 'unheard_of'; expected one of"),
        (config.replace('"hidden": 16', '"hidden": 17'), "do not fit each other"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=message):
            load_world_model(tmp_path)


def test_models_are_found_by_the_name_of_their_subpackage() -> None:
    assert {"layered", "general", "tiny"} <= set(world_model_names())
    with pytest.raises(ValueError, match="already registered"):
        register_world_model("tiny")(type("Impostor", (TinyWorldModel,), {}))


def test_the_benchmark_measures_every_figure(env: WorldRigEnv) -> None:
    assert bench.world_step_ms(env, steps=20)["p50"] > 0
    assert bench.rollback_to_frame_ms(env, jumps=5)["p99"] >= 0
    assert bench.world_batch16_frames_per_s(env, steps=3) > 0
    size = bench.snapshot_bytes(env, steps=20)
    assert 0 < size["state"] <= 64 * 1024
    assert bench.matmul_gflops(64, 3) >= 0
