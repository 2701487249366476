"""The conformance suite: one black-box program that says whether a running rig is a drop-in for the others.

It knows the rig file and nothing else: no parameter, node name or message that only one kind of rig has. Checks
register themselves (:func:`hiwm_rig.conformance.registry.check`); a new one is a new function under ``checks/``.
"""
