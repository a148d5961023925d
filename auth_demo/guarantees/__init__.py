"""The page `/demo/guarantees`: each promise is tried when a button is pressed, and what was measured is shown."""
