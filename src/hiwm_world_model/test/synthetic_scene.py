"""A toy rig drawn with numpy and OpenCV: a bar that two joints move, and an L-shaped piece that it pushes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from hiwm_world_model.layered.data import EpisodeSpan, Recording

SIZE, FINE = 64, 4
SHAPE = np.array([[-6, -8], [-1, -8], [-1, 3], [7, 3], [7, 8], [-6, 8]], float)
SHAPE -= np.array([-4 / 3, 11 / 6])  # the centre of area
REACH, TOOL = 7.0, 2.0


@dataclass
class Scene:
    recording: Recording
    poses: np.ndarray  # [N, 3] x, y in pixels, angle; only tests look at it
    frames: np.ndarray  # [N, H, W, 3]


def tip(joints: np.ndarray) -> np.ndarray:
    return np.array([32 + 20 * joints[0], 34 + 20 * joints[1]])


def background(rng: np.random.Generator) -> np.ndarray:
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 6)
    return np.clip(150 + 1.5 * (texture - texture.mean()), 0, 255)


def draw(canvas: np.ndarray, pose: np.ndarray, joints: np.ndarray) -> np.ndarray:
    image = cv2.resize(canvas, None, fx=FINE, fy=FINE, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    c, s = np.cos(pose[2]), np.sin(pose[2])
    corners = SHAPE @ np.array([[c, s], [-s, c]]) + pose[:2]
    cv2.fillPoly(image, [np.round((corners * FINE - 0.5) * 16).astype(np.int32)], (40, 60, 220), shift=4)
    end = tip(joints)
    points = np.round(np.array([[32, -4], end]) * FINE - 0.5).astype(int)
    cv2.line(image, tuple(map(int, points[0])), tuple(map(int, points[1])), (30, 35, 30), 5 * FINE)
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def push(pose: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The tool pushes the piece out of its way; off-centre pushes turn it."""
    out = pose.copy()
    for k in range(1, 5):
        end = before + (after - before) * k / 4
        d = out[:2] - end
        gap = REACH + TOOL - np.hypot(*d)
        if gap > 0:
            n = d / max(np.hypot(*d), 1e-6)
            step = (after - before) / 4
            out[:2] += n * gap
            out[2] += 0.05 * (n[0] * step[1] - n[1] * step[0])
    out[:2] = np.clip(out[:2], 12, SIZE - 12)
    return out


def make_scene(episodes: int = 24, length: int = 40, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    canvas = background(rng)
    frames, joints, actions, poses, success, spans = [], [], [], [], [], []
    for e in range(episodes):
        q = rng.uniform(-0.9, 0.9, 2)
        pose = np.array([*rng.uniform(18, SIZE - 18, 2), rng.uniform(-np.pi, np.pi)])
        pose = push(pose, tip(q) - [0, 1e-3], tip(q))
        goal = q
        spans.append(EpisodeSpan(len(frames), length, e >= episodes - 4))
        for t in range(length):
            if t % 6 == 0:
                near = (pose[:2] - [32, 34]) / 20 if rng.random() < 0.6 else rng.uniform(-0.95, 0.95, 2)
                goal = np.clip(near + rng.normal(0, 0.15, 2), -0.95, 0.95)
            action = q + np.clip(goal - q, -0.12, 0.12)
            frames.append(draw(canvas, pose, q))
            joints.append(q)
            actions.append(action)
            poses.append(pose)
            success.append(pose[0] > SIZE / 2)
            following = q + 0.9 * (action - q)
            pose = push(pose, tip(q), tip(following))
            q = following
    images = np.stack(frames)
    recording = Recording(
        [images], np.asarray(joints, np.float32), np.asarray(actions, np.float32), spans, np.asarray(success)
    )
    return Scene(recording, np.stack(poses), images)
