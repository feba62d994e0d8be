"""A classifier behind HTTP: JSON in, labels out, and a page to try it.

    messages.py  what may be asked, and what is refused       worker.py  who is answered when, and with whom
    app.py       addresses and statuses                       page.py    the page: page.html, page.css, page.js

Between a function that predicts (tasks/serve.py gives it) and uvicorn, which tasks/serve.py runs. Needs the extra `serve`, and
knows no model. It keeps nothing of what it is asked.
"""
