"""The commands behind `launch.py --app=`: each is a module with one function `run`, whose keywords are its flags."""
