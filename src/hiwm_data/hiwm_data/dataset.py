"""Datasets on disk in the layout of LeRobotDataset v3 (parquet and mp4), ROS-free: the public names.

Layout (checked against huggingface/lerobot, ``src/lerobot/datasets``): ``meta/info.json``, ``meta/stats.json``,
``meta/tasks.parquet``, ``meta/episodes/chunk-000/file-000.parquet``, ``data/chunk-000/file-000.parquet`` and
``videos/<key>/chunk-000/file-000.mp4``. One file holds many episodes; the episodes table says where each lies.
"""

from hiwm_data.camera_frames import CameraFrames
from hiwm_data.features import (
    ACTION,
    ENVIRONMENT_STATE,
    IMAGE_PREFIX,
    STATE,
    SUCCESS,
    DatasetError,
    Feature,
    provenance_features,
    rig_features,
)
from hiwm_data.merge import append_datasets, merge_datasets
from hiwm_data.paths import BranchPath, branch_paths
from hiwm_data.reader import Dataset, Episode
from hiwm_data.stats import Moments
from hiwm_data.video import VideoOptions
from hiwm_data.writer import DatasetWriter

__all__ = [
    "ACTION",
    "ENVIRONMENT_STATE",
    "IMAGE_PREFIX",
    "STATE",
    "SUCCESS",
    "BranchPath",
    "CameraFrames",
    "Dataset",
    "DatasetError",
    "DatasetWriter",
    "Episode",
    "Feature",
    "Moments",
    "VideoOptions",
    "append_datasets",
    "branch_paths",
    "merge_datasets",
    "provenance_features",
    "rig_features",
]
