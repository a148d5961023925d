"""The OpenID Connect protocol of the demo provider. Independent of HTTP frameworks."""
