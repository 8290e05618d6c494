"""Which metrics score which outputs."""
