"""What runs outhaul: an embedded stack, a demo, load and chaos; files for Docker, Kubernetes, systemd and Grafana."""
