"""Launch files, parameters, layouts and the hiwm command line; no logic."""
