"""Discord: asks the router, answers, and takes 👍 and 👎 as outcomes. client.py is the bot, run.py starts it."""
