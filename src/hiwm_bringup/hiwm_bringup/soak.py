"""``hiwm bench --soak``: the physical rig on emulated servos under random faults, for as long as one likes.

After each fault the rig has to heal, by itself or by the one thing a person would do (switch the torque on again,
release the emergency stop), and a person has to be able to drive it again. Whatever is found is counted, and the soak
goes on as long as the nodes live.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from hiwm_rig.codecs import joint_state_to_sample
from hiwm_rig.contract import Arm, load_rig
from hiwm_rig.types import Driver
from std_srvs.srv import SetBool, Trigger
from tqdm import tqdm

from hiwm_bringup.arm_session import ArmSession, arm_nodes
from hiwm_bringup.bench import Figures, percentiles
from hiwm_bringup.processes import NodeDiedError, Supervisor
from hiwm_bringup.testing import graph, unique_domain

if TYPE_CHECKING:
    from hiwm_bringup.bench import BenchOptions

_START_S = 90.0
_HEALS_S = 20.0
"""A rig that does not obey this long after its fault has ended is stuck."""
_NO_ANSWER = (TimeoutError, FileNotFoundError)
"""A service or an emulator does not answer, or has gone; whether a node has died is looked at after the round."""
_TOLERANCE = 5e-3
"""rad or m: a tick, and the lag of a servo at its limit."""

Fault = Callable[[ArmSession, Arm, np.random.Generator], None]


def _bus_fault(part: str, *texts: str) -> Fault:
    def make(session: ArmSession, arm: Arm, rng: np.random.Generator) -> None:
        for text in texts:
            session.order(part, text.format(id=int(rng.integers(1, len(arm.joints) + 1))), arm)

    return make


def _stop(session: ArmSession, arm: Arm, rng: np.random.Generator) -> None:
    session.probe.call(SetBool, "/hiwm/emergency_stop", SetBool.Request(data=True))


def _limp(session: ArmSession, arm: Arm, rng: np.random.Generator) -> None:
    session.probe.call(SetBool, f"/{arm.name}/torque", SetBool.Request(data=False))
    session.order("follower", f"hand 1 {int(rng.integers(1500, 2600))}", arm)  # somebody moves the limp arm


def _twist(session: ArmSession, arm: Arm, rng: np.random.Generator) -> None:
    for joint in range(len(arm.joints)):
        session.hand(joint, float(rng.uniform(-3.0, 3.0)), arm)  # far beyond the follower's limits


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "follower unplugged": _bus_fault("follower", "unplug"),
        "follower unplugged shortly": _bus_fault("follower", "unplug 0.1"),
        "follower servo missing": _bus_fault("follower", "missing {id}"),
        "follower bad CRC": _bus_fault("follower", "crc {id}"),
        "follower late": _bus_fault("follower", "late {id} 0.1"),
        "follower slow bus": _bus_fault("follower", "slow 0.006"),
        "follower overload": _bus_fault("follower", "overload {id}"),
        "follower power lost": _bus_fault("follower", "missing {id}", "power"),
        "leader unplugged": _bus_fault("leader", "unplug"),
        "leader servo missing": _bus_fault("leader", "missing {id}"),
        "leader overload": _bus_fault("leader", "overload {id}"),
        "emergency stop": _stop,
        "torque off": _limp,
        "leader twisted": _twist,
    }
)


@dataclass
class Soak:
    """What has happened so far."""

    faults: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    healed_s: list[float] = field(default_factory=list)
    outside: int = 0
    asked_again: int = 0
    states: int = 0
    died: str = ""

    def look(self, session: ArmSession) -> None:
        """Judge every position and every goal of the followers since the last look."""
        for arm in session.rig.arms:
            topics = session.arms[arm.name]
            lower = np.array([j.lower for j in arm.joints]) - _TOLERANCE
            upper = np.array([j.upper for j in arm.joints]) + _TOLERANCE
            for message in topics.follower[:-1]:
                positions = joint_state_to_sample(message, arm.joint_names).positions
                self.outside += int(((positions < lower) | (positions > upper)).any())
            self.states += len(topics.follower) - 1
            del topics.follower[:-1], topics.leader[:-1]
            topics.commands.clear()
            for servo in session.servos("follower", arm).values():
                self.outside += int(not servo["min"] <= servo["goal"] <= servo["max"])
        del session.control[:-1], session.diagnostics[:-1]


def run_soak(options: BenchOptions, minutes: float) -> Figures:
    """Run the soak; its counts."""
    rig = load_rig(options.rig_file)
    soak, rng = Soak(), np.random.default_rng(0)
    with unique_domain() as domain, graph(arm_nodes(f"rig_file:={options.rig_file}", cameras=True), domain) as nodes:
        session = ArmSession(rig, domain)
        try:
            session.until(lambda: nodes.poll() and session.started, "the rig", _START_S)
            _rounds(session, nodes, soak, rng, minutes)
        except NodeDiedError as error:
            soak.died = str(error).splitlines()[0]
        finally:
            session.close()
    return {"soak": _summary(soak, minutes)}


def found(figures: Figures) -> list[str]:
    """What is wrong in the figures of :func:`run_soak`, one sentence each; empty where the rig came through."""
    counts = figures["soak"]
    wrong = [f"stuck {text}" for text in counts["stuck"]]
    if not counts["nodes_alive"]:
        wrong.append(counts["died"])
    if counts["outside_limits"]:
        wrong.append(f"{counts['outside_limits']} positions or goals of followers outside their limits")
    if not counts["faults"]:
        wrong.append("no fault was tried: give it more minutes")
    return wrong


def _rounds(session: ArmSession, nodes: Supervisor, soak: Soak, rng: np.random.Generator, minutes: float) -> None:
    deadline = time.monotonic() + 60 * minutes
    form = "{l_bar}{bar}| {n:.0f}/{total} s"
    with tqdm(total=round(60 * minutes), desc="soak", bar_format=form, leave=False) as bar:
        while time.monotonic() < deadline:
            start = time.monotonic()
            nodes.poll()
            _round(session, soak, rng)
            nodes.poll()
            try:
                soak.look(session)
            except _NO_ANSWER as error:
                soak.stuck.append(f"asking the emulators: {error}")
            bar.update(time.monotonic() - start)


def _round(session: ArmSession, soak: Soak, rng: np.random.Generator) -> None:
    """A person drives, something goes wrong in some phase of it, and is put right again."""
    arm = session.rig.arms[int(rng.integers(len(session.rig.arms)))]
    driver = Driver.HUMAN if rng.uniform() < 0.7 else Driver.PAUSED
    name = str(rng.choice(list(FAULTS)))
    phase = f"before '{name}'"
    try:
        session.ask(driver, _HEALS_S)
        session.hand(0, float(rng.uniform(-1.0, 1.0)), arm)
        session.probe.spin_for(float(rng.uniform(0.0, 0.6)))
        phase = f"after '{name}'"
        FAULTS[name](session, arm, rng)
        soak.faults[name] += 1
        session.probe.spin_for(float(rng.uniform(0.1, 1.5)))
        began = time.monotonic()
        _put_right(session)
        _drive_again(session, soak, arm, float(rng.uniform(-0.8, 0.8)))
        soak.healed_s.append(time.monotonic() - began)
    except _NO_ANSWER as error:
        soak.stuck.append(f"{phase}: {error}")
        _try_to_put_right(session, soak)


def _try_to_put_right(session: ArmSession, soak: Soak) -> None:
    """So that the next round starts with a rig that obeys; a rig that does not is found stuck by that round again."""
    try:
        _put_right(session)
    except _NO_ANSWER as error:
        soak.stuck.append(f"after all faults had ended: {error}")


def _drive_again(session: ArmSession, soak: Soak, arm: Arm, goal: float) -> None:
    """A person takes over and moves a joint; asks again where the arbiter has let go, as a stale leader makes it."""
    session.ask(Driver.HUMAN, _HEALS_S)
    session.hand(0, goal, arm)
    session.until(
        lambda: session.follows(0, goal, arm) or session.control[-1].driver != Driver.HUMAN,
        "the follower obeys",
        _HEALS_S,
    )
    if not session.follows(0, goal, arm):
        soak.asked_again += 1
        session.ask(Driver.HUMAN, _HEALS_S)
        session.until(lambda: session.follows(0, goal, arm), "the follower obeys again", _HEALS_S)


def _put_right(session: ArmSession) -> None:
    for arm in session.rig.arms:
        for part in ("follower", "leader"):
            session.order(part, "clear", arm)
            session.order(part, "replug", arm)
            session.order(part, "release", arm)
        session.probe.call(Trigger, f"/{arm.leader_name}/restart", Trigger.Request())
        session.probe.call(SetBool, f"/{arm.name}/torque", SetBool.Request(data=True))
    session.probe.call(SetBool, "/hiwm/emergency_stop", SetBool.Request(data=False))


def _summary(soak: Soak, minutes: float) -> dict[str, Any]:
    return {
        "minutes": minutes,
        "nodes_alive": not soak.died,
        "died": soak.died,
        "faults": dict(sorted(soak.faults.items())),
        "stuck": soak.stuck,
        "states": soak.states,
        "outside_limits": soak.outside,
        "asked_again": soak.asked_again,
        "healed_s": percentiles(soak.healed_s) if soak.healed_s else {},
    }
