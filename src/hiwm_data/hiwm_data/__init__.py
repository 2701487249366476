"""Episodes: recorder, replay, bags to and from LeRobot datasets."""
