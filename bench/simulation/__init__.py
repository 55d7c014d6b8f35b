"""The learner in a simulated world whose truth is known, through the functions that the product itself uses."""
