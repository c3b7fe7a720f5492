"""What a network is trained for: data, losses, evaluation."""
