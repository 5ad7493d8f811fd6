"""What is run on a schedule or on demand: the nights of many scopes, and looks at them that change nothing."""
