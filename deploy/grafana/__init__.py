"""The Grafana dashboards: what they show, as code that writes their JSON files."""
