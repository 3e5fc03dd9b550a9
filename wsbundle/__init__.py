"""What `pip install wsbundle` installs: the program as it is in its repository, in `tree` beside this file."""
