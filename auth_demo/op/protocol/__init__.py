"""OpenID Connect as the demo provider speaks it; knows no HTTP framework."""
