"""``hiwm train world`` and ``hiwm evaluate world``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hiwm_rig.files import write_json, write_text

EXIT_OK, EXIT_ERROR = 0, 1


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm train world``."""
    parser.add_argument(
        "--data", nargs="+", type=Path, required=True, help="datasets (LeRobotDataset v3), concatenated"
    )
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--model", default="layered", help="name of the world model (default: layered)")
    parser.add_argument("--rig", default="push_t", help="rig the data was recorded on: name or file")
    parser.add_argument("--starts", type=Path, help="dataset whose first frames the virtual robot starts from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="torch device, for example cuda")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--no-resume", action="store_true", help="start anew even where --out holds a checkpoint")
    parser.add_argument("--smoke", action="store_true", help="the smallest run through all stages; not a useful model")
    parser.add_argument("--trust-threshold", type=float, help="worst-block error up to which a picture is right")
    parser.add_argument("--only-trust", action="store_true", help="leave the weights; fit trust and the library again")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the model")


def run_train(args: argparse.Namespace) -> int:
    """Train a model, then fit its trust head and write its library of starts; 0 when all is done."""
    from hiwm_data.features import DatasetError

    from hiwm_world_model.interface import ModelError

    try:
        _train(args)
    except (ModelError, DatasetError, ValueError, NotImplementedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return EXIT_OK


def _train(args: argparse.Namespace) -> None:
    from hiwm_data.dataset import Dataset
    from hiwm_rig.contract import load_rig

    from hiwm_world_model.interface import TrainOptions
    from hiwm_world_model.registry import world_model_class

    cls = world_model_class(args.model)
    for root in args.data:
        Dataset(root).check_joints(load_rig(args.rig).joint_names)
    if not args.only_trust:
        options = TrainOptions(
            data=tuple(args.data),
            out=args.out,
            rig=args.rig,
            seed=args.seed,
            device=args.device,
            amp=args.amp,
            resume=not args.no_resume,
            smoke=args.smoke,
            overrides=_assignments(args.set),
        )
        cls.train(options)
    finish_model(args.out, args.data, args.starts, args.trust_threshold, args.device)


def finish_model(
    directory: Path, data: list[Path], starts: Path | None, threshold: float | None = None, device: str = "cpu"
) -> None:
    """What follows training: the library of real first frames, and the trust head.

    Args:
        directory: of the trained model.
        data: datasets; the held-out episodes of the last one are what trust is calibrated on.
        starts: dataset to take first frames from; the first of ``data`` by default.
        threshold: worst-block error up to which a picture is right; the median by default.
        device: torch device.

    Too few held-out episodes for a trust head give a warning: the model then reports NaN.

    Raises:
        ModelError: if the directory holds no model.
    """
    from hiwm_data.dataset import Dataset

    from hiwm_world_model.interface import ModelError
    from hiwm_world_model.library import StartLibrary
    from hiwm_world_model.registry import load_world_model
    from hiwm_world_model.trust import collect_samples, fit

    model = load_world_model(directory, device)
    cameras = tuple(c.name for c in model.spec.cameras)
    StartLibrary.from_dataset(Dataset(starts or data[0]), cameras, source="demonstration").save(directory)
    try:
        head = fit(collect_samples(model, Dataset(data[-1])), threshold)
    except ModelError as error:  # a model without trust is still a model; users see NaN
        print(f"warning: no trust head written: {error}", file=sys.stderr)
        return
    head.save(directory)
    print(
        f"trust: AUROC {head.report.auroc:.3f}, calibration error {head.report.calibration_error:.3f} "
        f"({head.report.samples} predictions, right up to a worst-block error of {head.report.threshold:.3f})"
    )


def _assignments(items: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for key, separator, _ in pairs:
        if not separator:
            raise ValueError(f"--set {key}: expected KEY=VALUE")
    return {key: value for key, _, value in pairs}


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm evaluate world``."""
    parser.add_argument("--model", type=Path, required=True, help="model directory")
    parser.add_argument("--data", type=Path, required=True, help="dataset with held-out episodes")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file to write; a table is written beside it (.md)"
    )
    parser.add_argument("--split", default="val", help="episodes to evaluate on (default: val)")
    parser.add_argument(
        "--horizons", type=int, nargs="+", default=[1, 10, 30, 60], help="steps after the last real frame"
    )
    parser.add_argument("--windows", type=int, default=240, help="at most so many windows")
    parser.add_argument("--device", default="cpu", help="torch device")


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate a model open loop; 0 when the report is written."""
    from hiwm_data.features import DatasetError

    from hiwm_world_model.evaluate import Options, evaluate_world, markdown
    from hiwm_world_model.interface import ModelError
    from hiwm_world_model.registry import load_world_model

    options = Options(horizons=tuple(args.horizons), split=args.split, max_windows=args.windows)
    try:
        report = evaluate_world(load_world_model(args.model, args.device), args.data, options)
    except (ModelError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    write_json(args.out, report)
    table = markdown(report)
    write_text(args.out.with_suffix(".md"), table)
    print(table)
    return EXIT_OK
