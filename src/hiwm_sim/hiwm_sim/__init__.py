"""The MuJoCo reference rig: tasks, scripted demonstrators, visual variations."""
