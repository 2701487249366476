"""The probe of integration tests and benchmarks; it lives below, where the conformance suite needs it too."""

from hiwm_rig.participant import Probe

__all__ = ["Probe"]
