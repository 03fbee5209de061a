"""From a Kubernetes pod to running containers."""
