"""What runs outhaul in Kubernetes, and the one file of it that is made from another."""
