"""Visual variations: the same physics with another table, object colour, light, camera place or clutter.

A variation is a function registered by name that changes a :class:`Visuals`; it draws from its own random stream, so
it never changes the state of a task. ``default`` is what the training data shows.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import mujoco
import numpy as np
import numpy.typing as npt

from hiwm_sim.scene import DISTRACTORS

Variation = Callable[["Visuals", mujoco.MjData, np.random.Generator], None]
VARIATIONS: dict[str, Variation] = {}


class Visuals:
    """What can be changed about the looks of a compiled scene without recompiling it."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._texture = model.texture("table").id
        self._defaults = {
            "tex_data": model.tex_data.copy(),
            "mat_rgba": model.mat_rgba.copy(),
            "light_diffuse": model.light_diffuse.copy(),
            "light_dir": model.light_dir.copy(),
            "cam_pos": model.cam_pos.copy(),
        }
        self._version = 0
        self._uploaded: dict[int, int] = {}

    def restore(self) -> None:
        """Back to the looks the scene was compiled with."""
        for name, value in self._defaults.items():
            getattr(self._model, name)[:] = value
        self._version += 1

    def table(self, image: npt.NDArray[np.uint8]) -> None:
        """Put an (H, W, 3) picture on the table."""
        model, i = self._model, self._texture
        height, width, channels = int(model.tex_height[i]), int(model.tex_width[i]), int(model.tex_nchannel[i])
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., :channels]
        start = int(model.tex_adr[i])
        model.tex_data[start : start + resized.size] = resized.ravel()
        self._version += 1

    def material(self, name: str, rgb: npt.ArrayLike) -> None:
        """Colour of a material (``object``, ``goal``, ``arm``), three values in 0..1."""
        self._model.mat_rgba[self._model.material(name).id, :3] = rgb

    def light(self, brightness: float, direction: npt.ArrayLike) -> None:
        """Key light: diffuse brightness in 0..1 and direction (3,)."""
        self._model.light_diffuse[0] = brightness
        self._model.light_dir[0] = direction

    def move_cameras(self, offset: npt.ArrayLike) -> None:
        """Shift all cameras by (3,) metres."""
        self._model.cam_pos[:] = self._defaults["cam_pos"] + np.asarray(offset)

    def distractors(self, data: mujoco.MjData, positions: npt.ArrayLike, rgb: npt.ArrayLike) -> None:
        """Show the first N distractors at (N, 3) positions in (N, 3) colours."""
        for i, (position, colour) in enumerate(zip(np.asarray(positions), np.asarray(rgb))):
            data.mocap_pos[self._model.body(f"distractor{i}").mocapid[0]] = position
            self._model.geom_rgba[self._model.geom(f"distractor{i}").id, :3] = colour

    def upload(self, renderer: mujoco.Renderer) -> None:
        """Send the table's texture to a renderer's context if it changed since the last call."""
        if self._uploaded.get(id(renderer), 0) == self._version:
            return
        renderer._gl_context.make_current()
        mujoco.mjr_uploadTexture(self._model, renderer._mjr_context, self._texture)
        self._uploaded[id(renderer)] = self._version


def register_variation(name: str) -> Callable[[Variation], Variation]:
    """Decorator: make a variation selectable by name.

    Raises:
        ValueError: if the name is taken.
    """

    def register(function: Variation) -> Variation:
        if name in VARIATIONS:
            raise ValueError(f"visual variation '{name}' is already registered")
        VARIATIONS[name] = function
        return function

    return register


def make_visual(name: str) -> Variation:
    """A variation by name, or several joined with ``+`` (``background+distractors``), applied left to right.

    Raises:
        KeyError: naming the variations there are.
    """
    names = name.split("+")
    for part in names:
        if part not in VARIATIONS:
            raise KeyError(f"no visual variation '{part}'; there are {', '.join(sorted(VARIATIONS))}")

    def apply(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
        visuals.restore()
        for part in names:
            VARIATIONS[part](visuals, data, rng)

    return apply


@register_variation("default")
def _default(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """The looks of the scene as compiled."""


@register_variation("background")
def _background(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Another table: tiles, clouds or plain, in muted colours so that object and goal stay visible."""
    kind = int(rng.integers(3))
    base = rng.uniform(90, 190, 3)
    spread = rng.uniform(-35, 35, (8, 8, 3)) if kind < 2 else np.zeros((8, 8, 3))
    small = np.clip(base + spread, 0, 255).astype(np.uint8)
    interpolation = cv2.INTER_NEAREST if kind == 0 else cv2.INTER_CUBIC
    visuals.table(np.asarray(cv2.resize(small, (256, 256), interpolation=interpolation), dtype=np.uint8))


@register_variation("object")
def _object(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Another saturated object colour, away from the green of the goal."""
    hue = float(rng.choice(np.r_[np.arange(0, 25), np.arange(100, 175)]))
    pixel = np.array([[[hue, rng.uniform(170, 240), rng.uniform(150, 220)]]], dtype=np.uint8)
    visuals.material("object", cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] / 255.0)


@register_variation("light")
def _light(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Another key light."""
    visuals.light(rng.uniform(0.3, 0.8), [rng.uniform(-0.5, 0.3), rng.uniform(-0.5, 0.5), -1.0])


@register_variation("camera")
def _camera(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Cameras that sit some millimetres elsewhere."""
    visuals.move_cameras(rng.normal(0.0, 0.005, 3))


@register_variation("distractors")
def _distractors(visuals: Visuals, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Coloured solids beside the working area."""
    count = len(DISTRACTORS)
    side = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
    positions = np.stack(
        [rng.uniform(0.16, 0.46, count), side * rng.uniform(0.17, 0.22, count), np.full(count, 0.018)], 1
    )
    visuals.distractors(data, positions, rng.uniform(0.1, 0.9, (count, 3)))
