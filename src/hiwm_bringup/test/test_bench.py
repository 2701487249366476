"""The benchmark counts what it says it counts."""

import json

import numpy as np
import pytest
from hiwm_bringup.bench_graph import on_time_share

from hiwm_bringup import bench, cli

NS = 1_000_000_000


def stamps(times) -> list[int]:
    return [round((1000 + t) * NS) for t in times]


def test_steady_ticks_are_all_on_time():
    rng = np.random.default_rng(0)
    times = np.arange(1000) * 0.1 + rng.uniform(0, 0.01, 1000)
    assert on_time_share(stamps(times), 0.1) == 1.0


def test_a_skipped_tick_and_a_late_tick_each_count():
    times = np.arange(1000) * 0.1
    assert on_time_share(stamps(np.delete(times, 500)), 0.1) == pytest.approx(0.999)
    times[300] += 0.07
    assert on_time_share(stamps(times), 0.1) == pytest.approx(0.999)


def test_a_rig_at_half_its_rate_is_half_on_time():
    assert on_time_share(stamps(np.arange(500) * 0.2), 0.1) == pytest.approx(0.5, abs=0.01)
    assert on_time_share([], 0.1) == 0.0


def test_the_machine_speed_is_always_reported(tmp_path, capsys):
    assert cli.main(["bench", "matmul_gflops", "--out", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["matmul_gflops"] > 0


def test_unknown_figures_are_refused_with_those_there_are(capsys):
    assert cli.main(["bench", "warp_speed"]) == bench.EXIT_USAGE
    assert "world_step_ms" in capsys.readouterr().err


def test_a_missing_model_is_an_error_not_a_traceback(tmp_path, capsys):
    assert cli.main(["bench", "policy_ms", "--policy", str(tmp_path)]) == bench.EXIT_USAGE
    assert "no policy checkpoint" in capsys.readouterr().err
