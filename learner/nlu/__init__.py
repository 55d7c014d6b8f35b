"""Trains the classifier of question types on what channels logged and people reviewed."""
