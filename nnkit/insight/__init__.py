"""What a person looks at: reports, plots, explanations and audits of a trained model."""
