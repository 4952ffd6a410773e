"""Behind the routes of app.py: uploads, decoding in child processes, answers, errors, the web server.

Nothing of an upload is kept."""
