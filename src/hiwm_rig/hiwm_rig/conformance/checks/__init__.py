"""The checks, by what they look at. Importing this package registers them, in the order of the report."""

from hiwm_rig.conformance.checks import (  # noqa: F401, I001  # the order of the report
    interface,
    images,
    camera_info,
    joint_states,
    motion,
    rejections,
    lifecycle,
)
