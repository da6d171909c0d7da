"""Write a trained model for other programs."""
