"""The command line, by what a command is for. Each is a few lines into a room; pilotage.py is where it starts."""
