"""The systems that train: each fulfils `training.system.System`; none imports another."""
