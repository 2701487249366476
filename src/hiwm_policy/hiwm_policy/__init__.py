"""Policies, training, post-training, evaluation and the policy node."""
