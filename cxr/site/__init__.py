"""Behind the routes of app.py: uploads, answers, errors, the web server.

Nothing of an upload is kept."""
