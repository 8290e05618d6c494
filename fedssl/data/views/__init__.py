"""What a client sees of its samples: augmented views, drawn by key."""
