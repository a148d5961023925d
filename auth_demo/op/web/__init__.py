"""The pages and endpoints of the demo provider."""
