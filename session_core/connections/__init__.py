"""Long-lived connections that close when their session ends; knows no framework."""
