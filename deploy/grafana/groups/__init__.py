"""The panels of the dashboards, one file for each group: names of metrics -> panels. All pure."""
