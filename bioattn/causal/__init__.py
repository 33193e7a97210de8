"""What a trained model does when its input or its attention is changed, and the verdicts that follow."""
