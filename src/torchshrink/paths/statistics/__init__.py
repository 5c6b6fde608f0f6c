"""What the trainings of a path say: its points, the choice among them, and the verdict. Nothing here trains."""
