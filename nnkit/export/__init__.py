"""Write a trained model for other programs: a file or a folder for each format."""
