"""Action-conditioned world models, the world session and the virtual-robot node."""
