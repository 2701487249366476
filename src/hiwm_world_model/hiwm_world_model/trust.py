"""Trust: the calibrated probability, in [0, 1], that what a model shows is right.

Fitted after training, from recorded episodes alone: the model predicts held-out episodes open loop, each prediction is
right or wrong by the worst block of its picture (:func:`hiwm_world_model.fidelity.worst_block`), and a logistic model
on the model's own ``features(state)`` learns which. Half of the held-out episodes are for fitting, the other half for
the reported AUROC and calibration error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from hiwm_data.dataset import Dataset, Episode
from hiwm_rig.files import written_aside
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from hiwm_world_model.fidelity import auroc, calibration_error, worst_block

if TYPE_CHECKING:
    from hiwm_world_model.interface import WorldModel

TRUST_FILE = "trust.safetensors"
HORIZON = 60
STRIDE = 15
MAX_WINDOWS = 160
RIDGE = 1e-2
CLIP = 6.0
_FIELDS = ("mean", "scale", "weight", "bias")


@dataclass(frozen=True)
class TrustReport:
    """How well the head does on episodes it was not fitted on.

    Attributes:
        threshold: worst-block error (fraction of full scale) up to which a picture counts as right.
        auroc: probability that a right picture gets more trust than a wrong one.
        calibration_error: mean gap between trust and the share of right pictures.
        right: share of right pictures.
        samples: number of pictures.
    """

    threshold: float = float("nan")
    auroc: float = float("nan")
    calibration_error: float = float("nan")
    right: float = float("nan")
    samples: int = 0


@dataclass(frozen=True)
class TrustHead:
    """Logistic regression on standardised features and their squares.

    Attributes:
        mean, scale: [F] of the features.
        weight: [2F].
        bias: scalar.
        report: how good it is.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    report: TrustReport = field(default_factory=TrustReport)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Trust [B] in [0, 1] from features [B, F]."""
        expanded = _expand((features.detach().float().cpu() - self.mean) / self.scale)
        return torch.sigmoid(expanded @ self.weight + self.bias)

    def save(self, directory: Path) -> None:
        """Write ``trust.safetensors`` into a model directory."""
        metadata = {"report": json.dumps(asdict(self.report))}
        with written_aside(directory / TRUST_FILE) as partial:
            save_file({k: getattr(self, k) for k in _FIELDS}, partial, metadata)

    @classmethod
    def load_if_present(cls, directory: Path) -> TrustHead | None:
        """The head of a model directory, or None where none was fitted.

        Raises:
            ModelError: naming the file, if it is damaged.
        """
        from hiwm_world_model.interface import ModelError

        path = directory / TRUST_FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                report = TrustReport(**json.loads((file.metadata() or {}).get("report", "{}")))
                return cls(**{k: file.get_tensor(k) for k in _FIELDS}, report=report)
        except (SafetensorError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: not a trust head ({error}); delete it or fit it again") from error


@dataclass(frozen=True)
class Samples:
    """Predictions and how wrong they were.

    Attributes:
        features: [N, F].
        error: [N] worst-block error, fraction of full scale.
        fold: [N] 0 for fitting, 1 for testing; an episode lies in one fold.
        step: [N] steps since the last real frame.
    """

    features: npt.NDArray[np.float32]
    error: npt.NDArray[np.float64]
    fold: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]


def fold_of(episodes: Sequence[Episode]) -> dict[int, int]:
    """Episode index -> 0 (fit) or 1 (test): every other held-out episode."""
    return {e.index: i % 2 for i, e in enumerate(sorted(episodes, key=lambda e: e.index))}


def collect_samples(
    model: WorldModel, dataset: Dataset, split: str = "val", horizon: int = HORIZON, stride: int = STRIDE
) -> Samples:
    """Predict held-out episodes open loop; steps 0 to 3 and then every third give a sample."""
    from hiwm_world_model.rollouts import held_out, open_loop, real_images, windows_of

    episodes = held_out(dataset, split)
    folds = fold_of(episodes)
    windows = windows_of(episodes, horizon, stride)
    windows = windows[:: max(1, -(-len(windows) // MAX_WINDOWS))]
    frames = real_images(dataset, [c.name for c in model.spec.cameras])
    features, errors, fold, steps = [], [], [], []
    total = sum(w.length for w in windows)
    with tqdm(total=total, desc="trust: open-loop errors", unit="frame") as bar:
        for prediction in open_loop(model, dataset, windows, horizon, start=True):
            bar.update(len(prediction.windows) if prediction.step else 0)
            if prediction.step % 3 and prediction.step > 3:
                continue
            with torch.inference_mode():
                rows = model.features(prediction.result.state).float().cpu().numpy()
            for window, row, pick in zip(prediction.windows, prediction.rows, prediction.picks):
                images = prediction.result.images
                errors.append(max(worst_block(images[c][pick], np.asarray(frames[c][row])) for c in images))
                features.append(rows[pick])
                fold.append(folds[windows[window].episode])
                steps.append(prediction.step)
    return Samples(np.array(features, np.float32), np.array(errors), np.array(fold), np.array(steps))


def fit(samples: Samples, threshold: float | None = None) -> TrustHead:
    """Fit a head; without a threshold it is the median error, so that trust says "better than usual".

    Raises:
        ModelError: if there are too few samples, or all are right or all wrong.
    """
    from hiwm_world_model.interface import ModelError

    train = samples.fold == 0
    limit = float(np.median(samples.error[train])) if threshold is None and train.any() else (threshold or 0.0)
    right = samples.error <= limit
    if train.sum() < 20 or right[train].all() or not right[train].any():
        raise ModelError(
            f"trust cannot be fitted: {int(train.sum())} predictions, of which {int(right[train].sum())} are right "
            f"(worst-block error up to {limit:.3f}); give more held-out episodes or another threshold"
        )
    x = torch.from_numpy(samples.features)
    scale = x[train].std(0).clamp_min(1e-6)
    head = _logistic(x[train], torch.from_numpy(right[train]).float(), x[train].mean(0), scale)
    return replace(head, report=_report(head, samples, right, limit))


def _logistic(x: torch.Tensor, y: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> TrustHead:
    z = _expand((x - mean) / scale)
    weight = torch.zeros(z.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z @ weight + bias, y)
        loss = loss + RIDGE * weight.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return TrustHead(mean, scale, weight.detach(), bias.detach())


def _report(head: TrustHead, samples: Samples, right: npt.NDArray[np.bool_], threshold: float) -> TrustReport:
    test = samples.fold == 1
    if not test.any():
        return TrustReport(threshold=threshold)
    trust = head(torch.from_numpy(samples.features[test])).numpy().astype(np.float64)
    scores = auroc(trust, right[test]), calibration_error(trust, right[test])
    return TrustReport(threshold, *scores, float(right[test].mean()), int(test.sum()))


def _expand(z: torch.Tensor) -> torch.Tensor:
    z = z.clamp(-CLIP, CLIP)
    return torch.cat([z, z.square()], dim=1)
