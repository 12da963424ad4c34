"""What the dashboards show, a file a group: names of metrics -> panels. All pure."""
