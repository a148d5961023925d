"""Fresh access tokens, with one redemption of each refresh token."""
