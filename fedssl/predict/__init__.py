"""The final model outside a run: saved, loaded in three lines, and asked about images or sensor windows."""
