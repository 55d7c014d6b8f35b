"""The demo: an offline model, simulated users with hidden preferences, and weeks of traffic under a simulated clock."""
