"""Command-line tools that make or prepare data sets; nothing else imports them."""
