"""OpenID Connect as the demo provider speaks it; independent of HTTP frameworks."""
