"""The demo on a cluster whose primary can be killed."""
