"""Pages for people: what the router spends, earns and learns. Pages describe the screen; figures.py has the numbers.

run.py        starts it: 127.0.0.1 only, no request to anywhere else
app.py        navigation, the choice of scope and day, calm notices
today.py      page 1          quality.py   page 2
figures.py    the numbers of both pages, pure and typed, without Streamlit
source.py     the queries     charts.py    figures -> Altair     words.py    numbers -> text
"""
