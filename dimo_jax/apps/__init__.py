"""The commands behind `launch.py --app=`."""
