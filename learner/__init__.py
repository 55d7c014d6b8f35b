"""The control plane: learning runs, jobs, the admin API and the console."""
