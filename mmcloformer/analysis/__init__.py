"""What a model costs, what a training wrote, and what the branches see."""
