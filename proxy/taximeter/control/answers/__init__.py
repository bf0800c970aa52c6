"""What the control plane answers, as values. Pure; the command line uses them too."""
