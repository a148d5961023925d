"""Long-lived connections that close when their session ends; independent of frameworks."""
