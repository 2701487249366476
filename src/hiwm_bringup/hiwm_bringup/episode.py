"""``hiwm episode``: begin and end the episodes of a running graph, by the services of its arbiter."""

from __future__ import annotations

import argparse
import os
import sys

from hiwm_rig.types import Outcome

EXIT_OK, EXIT_FAILED = 0, 1
_OUTCOMES = {o.name.lower(): o for o in Outcome if o is not Outcome.UNKNOWN}
_WAIT_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiwm episode``."""
    parser.add_argument(
        "action",
        choices=("start", *_OUTCOMES),
        help="start: begin an episode; success, failure: end it with this outcome; discard: end it, and leave it out "
        "of datasets (the bag keeps it)",
    )
    parser.add_argument("--task", default="", help="of the episode; default: the rig file's")
    parser.add_argument("--note", default="", help="kept with the event in the bag")
    parser.add_argument("--domain", type=int, help="ROS_DOMAIN_ID of the graph (default: the environment's)")


def run(args: argparse.Namespace) -> int:
    """Call the service.

    Returns:
        0 where the arbiter agreed, 1 where it refused or there is none.
    """
    from hiwm_bringup.probe import Probe
    from hiwm_msgs.srv import EndEpisode, StartEpisode

    domain = int(os.environ.get("ROS_DOMAIN_ID", "0")) if args.domain is None else args.domain
    try:
        with Probe(domain, "hiwm_episode") as probe:
            if args.action == "start":
                start = StartEpisode.Request(task=args.task, note=args.note)
                answer = probe.call(StartEpisode, "/hiwm/start_episode", start, _WAIT_S)
            else:
                end = EndEpisode.Request(outcome=_OUTCOMES[args.action], note=args.note)
                answer = probe.call(EndEpisode, "/hiwm/end_episode", end, _WAIT_S)
    except TimeoutError as error:
        print(f"error: {error}; is the graph up in ROS domain {domain}?", file=sys.stderr)
        return EXIT_FAILED
    if not answer.success:
        print(f"error: {answer.message}", file=sys.stderr)
        return EXIT_FAILED
    print(f"episode {answer.episode_id} begins" if args.action == "start" else f"episode ended: {args.action}")
    return EXIT_OK
