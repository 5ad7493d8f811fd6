"""Talk to language models. adapter.py is the port, replay.py a recording, answer.py the whole path of a prompt."""
