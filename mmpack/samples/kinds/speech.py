"""The sample kind `speech`: speech with its transcript."""
