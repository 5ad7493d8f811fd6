"""Privacy: the keys of people, the prompts sealed with them, and how all that is kept of a person is taken away."""
