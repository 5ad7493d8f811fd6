"""HTTP over the other rooms. Start with app.py; each route file is thin, and gate.py stands before all of them."""
