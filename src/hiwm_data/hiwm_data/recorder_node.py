"""The recorder as a node: raw subscriptions to the rig's topics, handed to :class:`hiwm_data.recorder.Recorder`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hiwm_rig.rig_node import DiagnosticsReporter, StartupError, declare_rig, now_ns, run_node
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from hiwm_data.bag_writer import BagFormat, RecordingError
from hiwm_data.recorder import Recorder, RecorderOptions, checkpoint_id, recording_metadata
from hiwm_data.topics import TopicSpec, rig_topics

_WATCH_S = 0.2


def message_class(message_type: str) -> Any:
    """The Python class of ``package/msg/Name``.

    Raises:
        StartupError: if it is not installed.
    """
    package, _, name = message_type.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise StartupError(f"message type {message_type} is not installed: {error}") from error


def topic_qos(spec: TopicSpec) -> QoSProfile:
    """The rclpy profile of a recorded topic."""
    reliable = spec.reliability == "reliable"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=spec.depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if spec.latched else DurabilityPolicy.VOLATILE,
    )


class RecorderNode(Node):
    """Records until it is stopped; ends with an error when recording cannot go on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder", **kwargs)
        rig = declare_rig(self)
        output = str(self.declare_parameter("output", "").value)
        if not output:
            raise StartupError("parameter output must name the folder of the bag (it must not exist yet)")
        topics = rig_topics(rig)
        try:
            metadata = recording_metadata(rig, self._checkpoints())
            self.recorder = Recorder(output, topics, metadata, self._options())
        except RecordingError as error:
            raise StartupError(str(error)) from error
        for spec in topics:
            kind = message_class(spec.type)
            self.create_subscription(kind, spec.name, self._callback(spec.name), topic_qos(spec), raw=True)
        DiagnosticsReporter(self, self._diagnostics, rig.topics.diagnostics)
        self.create_timer(_WATCH_S, self._watch)
        self.get_logger().info(f"recording {len(topics)} topics of rig '{rig.name}' into {output}")

    def close(self) -> None:
        """Finish the bag."""
        recorder = getattr(self, "recorder", None)
        if recorder is None:
            return
        recorder.close()
        if recorder.error is not None:
            print(f"error: {recorder.error}", file=sys.stderr, flush=True)
        print(f"recorded {recorder.message_count} messages into {recorder.path}", flush=True)
        if recorder.options.per_episode and not recorder.message_count:
            print("no episode began: 'hiwm episode start' begins one", flush=True)

    def _options(self) -> RecorderOptions:
        defaults, form = RecorderOptions(), BagFormat()
        split = str(self.declare_parameter("split", "session").value)
        if split not in ("session", "episode"):
            raise StartupError(f"parameter split must be session or episode, got '{split}'")
        return RecorderOptions(
            flush_s=float(self.declare_parameter("flush_s", defaults.flush_s).value),
            min_free_mb=float(self.declare_parameter("min_free_mb", defaults.min_free_mb).value),
            max_queue_mb=float(self.declare_parameter("max_queue_mb", defaults.max_queue_mb).value),
            form=BagFormat(
                compression=str(self.declare_parameter("compression", form.compression).value),
                max_file_s=float(self.declare_parameter("max_file_s", form.max_file_s).value),
                max_file_mb=float(self.declare_parameter("max_file_mb", form.max_file_mb).value),
            ),
            images=str(self.declare_parameter("images", defaults.images).value),
            jpeg_quality=int(self.declare_parameter("jpeg_quality", defaults.jpeg_quality).value),
            per_episode=split == "episode",
        )

    def _checkpoints(self) -> dict[str, str]:
        """Ids from the parameter ``checkpoints``: ``role=folder`` pairs, separated by commas."""
        text = str(self.declare_parameter("checkpoints", "").value)
        pairs = [entry.partition("=") for entry in text.split(",") if entry.strip()]
        if any(not separator for _, separator, _ in pairs):
            raise StartupError(f"parameter checkpoints must be role=folder,role=folder, got '{text}'")
        return {role.strip(): checkpoint_id(Path(folder.strip())) for role, _, folder in pairs}

    def _callback(self, topic: str) -> Callable[..., None]:
        def on_message(data: bytes, info: Any) -> None:
            # Time of publication as the middleware knows it; 0 where it does not.
            self.recorder.offer(topic, data, now_ns(self), int(info["source_timestamp"]) or None)

        return on_message

    def _watch(self) -> None:
        if self.recorder.error is not None:
            raise self.recorder.error

    def _diagnostics(self) -> dict[str, Any]:
        counts = {f"written {topic}": count for topic, count in self.recorder.counts().items()}
        return {"bag": self.recorder.path, **self.recorder.counters, **counts}


def main(args: list[str] | None = None) -> None:
    """Entry point of ``recorder``."""
    sys.exit(run_node(RecorderNode, args))


if __name__ == "__main__":
    main()
